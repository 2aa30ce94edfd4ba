// Calls of `chatRemote` as a message says: routed, to one server, or to all. `err` is the first line
// of the error's stack, or null.
'use strict';

exports.default = (app) => new Handler(app);

const text = (err) => (err ? String(err.stack || err).split('\n')[0] : null);

class Handler {
  constructor(app) {
    this.app = app;
  }

  async call(m, session) {
    const remote = this.app.rpc.chat.chatRemote[m.method];
    const call = m.to ? remote.to(m.to) : remote.route(session);
    try {
      const result = await call(...m.args);
      return { err: null, results: m.to === '*' ? result : [result] };
    } catch (err) {
      return { err: text(err), results: null };
    }
  }
}
