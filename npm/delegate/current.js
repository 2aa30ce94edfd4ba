// The frontend whose code runs now. `require('pomelo').app` in that code is the frontend's application, also behind
// timers and promises. Where Node has lost the context, as in some pools of connections, it is that of this process.
'use strict';

const { AsyncLocalStorage } = require('async_hooks');

const current = new AsyncLocalStorage();

// Runs code of a frontend.
function runFor(app, work) {
  return current.run(app, work);
}

// Returns the framework's exports as the project gets them.
function shown(exported) {
  const inner = exported.pinus && withApp(exported.pinus);
  return inner ? new Proxy(exported, { get: (target, name) => (name === 'pinus' ? inner : target[name]) }) : withApp(exported);
}

function withApp(framework) {
  const get = (target, name) => (name === 'app' && current.getStore()) || target[name];
  return new Proxy(framework, { get });
}

module.exports = { runFor, shown };
