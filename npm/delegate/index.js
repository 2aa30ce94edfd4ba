// Loaded by `node --require tangelo/delegate` in a backend: handlers, filters and remotes of frontends then run in this
// backend as they ran in the frontend. The backend's entry in `servers.json` names the frontends' types:
//
//   "entry": [{"id": "entry-1", "host": "127.0.0.1", "port": 3260,
//              "delegateFor": "connector|gate", "args": " --require=tangelo/delegate"}]
//
// Without `delegateFor` on the command line this file does nothing.
'use strict';

const Module = require('module');
const path = require('path');
const { shown } = require('./current');
const { find } = require('./framework');
const install = require('./install');

const words = new Map(process.argv.slice(2).map((word) => {
  const at = word.indexOf('=');
  return [word.slice(0, at), word.slice(at + 1)];
}));
const types = (words.get('delegateFor') || '').split('|').filter(Boolean);

// As a name, or as the path that an `import` gives.
const FRAMEWORK = /^(pomelo|pinus)$|[\\/](pomelo[\\/]index|pinus[\\/]dist[\\/]lib[\\/]index)\.js$/;

// The framework must be loaded by the main script, because it asks at that time for the main script's folder.
if (types.length > 0 && !types.includes(words.get('serverType'))) {
  const load = Module._load;
  Module._load = function (request, parent, ...rest) {
    const loaded = load.call(this, request, parent, ...rest);
    if (!FRAMEWORK.test(request)) {
      return loaded;
    }
    Module._load = load;
    const file = Module._resolveFilename(request, parent);
    install(find(path.dirname(file)), types);
    require.cache[file].exports = shown(loaded);
    return require.cache[file].exports;
  };
}
