'use strict';
// Loaded by `node --require` before the main script of a project. The script configures the application as
// ever, but `start` writes what is configured into a file and ends the process.

const fs = require('fs');
const Module = require('module');
const { opened, replaceListen } = require('./network');
const { firstLine, placeOf } = require('./places');
const { collect } = require('./collect');
const { watch } = require('./watch');
const { watchFiles } = require('./files');

/** @type {{file: string, base: string, root: string, name: string, framework: string, lib: string}} */
const task = JSON.parse(process.env.TANGELO_RECORD);
delete process.env.TANGELO_RECORD;

/** Writes the result: a record, or `{error}`. The first one counts. */
function finish(result) {
  fs.writeFileSync(task.file, JSON.stringify({ ...result, opened: opened() }), { flag: 'wx' });
  process.exit(0);
}

function fail(error) {
  const place = placeOf(error, task.root);
  finish({ error: firstLine(error), place });
}

replaceListen();
watchFiles();

const load = Module._load;
Module._load = function (request, parent, isMain) {
  const loaded = load.call(this, request, parent, isMain);
  if (/pomelo|pinus/.test(request) && Module._resolveFilename(request, parent) === task.framework) {
    Module._load = load;
    replaceCreateApp(loaded.pinus || loaded);
  }
  return loaded;
};

function replaceCreateApp(framework) {
  const create = framework.createApp;
  framework.createApp = function (...args) {
    const app = create.apply(this, args);
    const places = watch(app, task.root, framework.connector || framework.components.connector);
    const start = () => {
      // The rest of the script may still configure something.
      setImmediate(() => collect(app, framework, task, places).then(finish, fail));
    };
    app.start = start;
    app.astart = () => new Promise(start);
    return app;
  };
}

const run = Module.runMain;
Module.runMain = function (...args) {
  try {
    return run.apply(this, args);
  } catch (error) {
    return fail(error);
  }
};

// Errors after the main script has run, which the project does not handle itself.
process.on('uncaughtExceptionMonitor', (error) => {
  if (process.listenerCount('uncaughtException') === 0) fail(error);
});
