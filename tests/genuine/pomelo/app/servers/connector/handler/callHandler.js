// Calls of `chatRemote` as a message says: routed, to one server, or to all. `err` is the first line
// of the error's stack, or null.
'use strict';

module.exports = (app) => new Handler(app);

function Handler(app) {
  this.app = app;
}

const text = (err) => (err ? String(err.stack || err).split('\n')[0] : null);

Handler.prototype.call = function (m, session, next) {
  const remote = this.app.rpc.chat.chatRemote[m.method];
  const done = (err, ...results) => next(null, { err: text(err), results: err ? null : results });
  if (m.to) {
    remote.toServer(m.to, ...m.args, done);
  } else {
    remote(session, ...m.args, done);
  }
};
