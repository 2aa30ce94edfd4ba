// The backend: it calls remotes of the frontend of its session.
'use strict';

module.exports = (app) => new Handler(app);

function Handler(app) {
  this.app = app;
}

const text = (err) => (err ? String(err.stack || err).split('\n')[0] : null);

Handler.prototype.call = function (m, session, next) {
  const remote = this.app.rpc.connector.entryRemote[m.method];
  remote.toServer(session.frontendId, ...m.args, (err, ...values) => next(null, { err: text(err), values }));
};

Handler.prototype.where = function (m, session, next) {
  const { uid, settings } = session;
  next(m.fail ? new Error('no') : null, { server: this.app.getServerId(), m, uid, settings });
};

// A session is bound, changed and unbound by another server than its connector.
Handler.prototype.login = function (m, session, next) {
  session.bind(m.uid, () => {
    session.set('room', m.room);
    session.push('room', () => next(null, { code: 200 }));
  });
};

Handler.prototype.logout = function (m, session, next) {
  session.unbind(session.uid, () => next(null, { code: 200 }));
};

Handler.prototype.unknown = function (m, session, next) {
  const call = { namespace: 'user', serverType: 'connector', service: m.service, method: 'nothing', args: [] };
  this.app.rpcInvoke(session.frontendId, call, (err) => next(null, { err: text(err) }));
};

// The servers that this server knows: the tests wait for that.
Handler.prototype.servers = function (m, session, next) {
  next(null, { ids: Object.keys(this.app.getServers()) });
};
