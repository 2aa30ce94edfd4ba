// The backend half of the reference application.
'use strict';

module.exports = (app) => new Handler(app);

function Handler(app) {
  this.app = app;
}

// The session as the frontend sent it. Pomelo's own `export` of a backend session loses its
// `this` and gives an empty object.
const exported = (session) => ({
  id: session.id,
  frontendId: session.frontendId,
  uid: session.uid,
  settings: session.settings,
});

// First line of the error's stack: over RPC nothing else is left of it.
const text = (err) => (err ? String(err.stack || err).split('\n')[0] : null);

Handler.prototype.send = function (m, session, next) {
  next(null, { got: m, sess: exported(session) });
};

Handler.prototype.errOnly = function (m, session, next) {
  next(new Error('backend boom'));
};

Handler.prototype.errResp = function (m, session, next) {
  next(new Error('backend boom'), { msg: 'bad' });
};

Handler.prototype.noResp = function (m, session, next) {
  next(null);
};

Handler.prototype.setPush = function (m, session, next) {
  session.set('room', m.room);
  session.push('room', (err) => next(null, { err: text(err) }));
};

Handler.prototype.bind = function (m, session, next) {
  session.bind(m.uid, (err) => next(null, { err: text(err), uid: session.uid }));
};

Handler.prototype.push = function (m, session, next) {
  const to = [{ uid: m.uid, sid: session.frontendId }];
  this.app.get('channelService').pushMessageByUids(m.route, m.msg, to, (err, fails) => {
    next(null, { err: text(err), fails });
  });
};

Handler.prototype.kick = function (m, session, next) {
  const service = this.app.get('backendSessionService');
  service.kickByUid(session.frontendId, m.uid, m.reason, (err) => next(null, { err: text(err) }));
};

Handler.prototype.kickSid = function (m, session, next) {
  const service = this.app.get('backendSessionService');
  service.kickBySid(session.frontendId, session.id, m.reason, (err) => {
    next(null, { err: text(err) });
  });
};

// The servers that this server knows; the harness waits for them.
Handler.prototype.servers = function (m, session, next) {
  next(null, { ids: Object.keys(this.app.getServers()) });
};
