'use strict';
// The delegate, and what the application itself has that a frontend would use.

const fs = require('fs');
const path = require('path');
const { placeOf } = require('./place');

/** Functions of the application, and the reason why a person has to look at them. */
const HOOKS = {
  errorHandler: null,
  globalErrorHandler: 'the delegate uses it for the frontend\'s own messages only; errors of forwarded messages '
    + 'become code 500',
  __beforeStopHook__: 'app.beforeStopHook runs as the delegate stops, not as the frontend stops',
  adminAuthServerMonitor: 'tangelo sends the token of adminServer.json, not the one of this function',
};

/** Folders and files of a server type that its delegate runs. */
const CODE = ['handler', 'remote', 'cron', 'lifecycle.js'];

/** Returns the parts of a frontend's own code that exist, such as `handler`. */
function ownCode(base, type) {
  return CODE.filter((name) => fs.existsSync(path.join(base, 'app/servers', type, name)));
}

function application(toml, { type, delegate, record, project }, notes) {
  const code = ownCode(project.base, type);
  if (delegate) {
    const runs = code.length > 0 ? `app/servers/${type}: ${code.join(', ')}` : 'functions of app.js';
    toml.set('delegate', delegate, `Runs ${runs}.`);
    toml.set('delegate_notices', true);
  }
  for (const hook of record.hooks) {
    if (HOOKS[hook]) notes.ask(HOOKS[hook], placeOf(record, `set ${hook}`));
  }
  for (const plugin of record.plugins) {
    notes.done(`${plugin}: this plugin runs in the delegate, whose app.event tells it of sessions`);
  }
  for (const component of record.components) {
    notes.ask(`${component}: this component runs in the other servers and in the delegate, not in the frontend`);
  }
  for (const address of record.opened) {
    notes.seen(`app.js of ${type} ${address}`);
  }
}

module.exports = { application, ownCode };
