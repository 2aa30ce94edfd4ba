// The backend half of the reference application: each method is one kind of answer.
'use strict';

module.exports = (app) => new Handler(app);

function Handler(app) {
  this.app = app;
  this.lists = new Map(); // one session's list of one name → what its notes said, oldest first
  this.held = []; // functions that answer the requests which wait for `release`
}

// The session as the frontend sent it. Pomelo's own `export` of a backend session loses its
// `this` and gives an empty object.
const exported = (session) => ({
  id: session.id,
  frontendId: session.frontendId,
  uid: session.uid,
  settings: session.settings,
});

Handler.prototype.send = function (m, session, next) {
  next(null, { got: m, sess: exported(session) });
};

Handler.prototype.echo = function (m, session, next) {
  delete m.__route__;
  next(null, m);
};

Handler.prototype.whoami = function (m, session, next) {
  next(null, Object.assign({ server: this.app.getServerId() }, exported(session)));
};

// Errors, with and without a response beside them.

Handler.prototype.errOnly = function (m, session, next) {
  next(new Error('backend boom'));
};

Handler.prototype.errResp = function (m, session, next) {
  next(new Error('backend boom'), { msg: 'bad' });
};

Handler.prototype.errCode = function (m, session, next) {
  next(new Error('backend boom'), { code: 417, msg: 'bad' });
};

Handler.prototype.errCode0 = function (m, session, next) {
  next(new Error('backend boom'), { code: 0, msg: 'bad' });
};

Handler.prototype.errStr = function (m, session, next) {
  next('just a string');
};

Handler.prototype.errStrResp = function (m, session, next) {
  next(new Error('backend boom'), 'hello');
};

Handler.prototype.throwErr = function () {
  throw new Error('backend throw');
};

// Responses that are not objects.

Handler.prototype.noResp = function (m, session, next) {
  next(null);
};

Handler.prototype.strResp = function (m, session, next) {
  next(null, 'hello');
};

Handler.prototype.numResp = function (m, session, next) {
  next(null, 42);
};

Handler.prototype.arrResp = function (m, session, next) {
  next(null, [1, 2, 3]);
};

Handler.prototype.zeroResp = function (m, session, next) {
  next(null, 0);
};

// Time and size.

Handler.prototype.slow = function (m, session, next) {
  setTimeout(() => next(null, { slow: m.ms, tag: m.tag }), m.ms);
};

Handler.prototype.never = function () {};

Handler.prototype.hold = function (m, session, next) {
  this.held.push(() => next(null, { held: m.n }));
};

Handler.prototype.countHeld = function (m, session, next) {
  next(null, { n: this.held.length });
};

Handler.prototype.release = function (m, session, next) {
  this.held.splice(0).forEach((answer) => answer());
  next(null);
};

Handler.prototype.big = function (m, session, next) {
  next(null, { s: 'x'.repeat(m.n) });
};

Handler.prototype.size = function (m, session, next) {
  next(null, { n: m.s.length });
};

// Memory: what arrived, in the order in which it arrived. A list belongs to one session and one
// name; the name keeps tests apart that meet the same session id on one backend.

const listKey = (m, session) => [session.frontendId, session.id, m.list].join('/');

Handler.prototype.note = function (m, session, next) {
  const key = listKey(m, session);
  if (!this.lists.has(key)) {
    this.lists.set(key, []);
  }
  this.lists.get(key).push(m.n);
  next(null);
};

Handler.prototype.notes = function (m, session, next) {
  next(null, { notes: this.lists.get(listKey(m, session)) || [] });
};

// The servers that this server knows.

Handler.prototype.servers = function (m, session, next) {
  next(null, { ids: Object.keys(this.app.getServers()) });
};

// The session at its frontend. `err` is the first line of the error's stack, or null.

const text = (err) => (err ? String(err.stack || err).split('\n')[0] : null);

Handler.prototype.bind = function (m, session, next) {
  session.bind(m.uid, (err) => next(null, { err: text(err), uid: session.uid }));
};

Handler.prototype.unbind = function (m, session, next) {
  session.unbind(m.uid, (err) => next(null, { err: text(err), uid: session.uid }));
};

Handler.prototype.setOnly = function (m, session, next) {
  session.set(m.k, m.v);
  next(null, exported(session));
};

Handler.prototype.setPush = function (m, session, next) {
  session.set(m.k, m.v);
  session.push(m.k, (err) => next(null, { err: text(err) }));
};

Handler.prototype.pushAll = function (m, session, next) {
  Object.keys(m.kv).forEach((key) => session.set(key, m.kv[key]));
  session.pushAll((err) => next(null, { err: text(err) }));
};

// Any session of a frontend, which is the asking one's if the message names none.

const frontend = (m, session) => m.frontendId || session.frontendId;

Handler.prototype.bySid = function (m, session, next) {
  this.app.get('backendSessionService').get(frontend(m, session), m.sid, (err, found) => {
    next(null, { err: text(err), session: found ? exported(found) : null });
  });
};

Handler.prototype.byUid = function (m, session, next) {
  this.app.get('backendSessionService').getByUid(frontend(m, session), m.uid, (err, found) => {
    next(null, { err: text(err), sessions: found ? found.map(exported) : null });
  });
};

// Without a `reason` in the message, none is in the call either; null is one.

Handler.prototype.kickSid = function (m, session, next) {
  const service = this.app.get('backendSessionService');
  const args = [frontend(m, session), m.sid].concat('reason' in m ? [m.reason] : []);
  service.kickBySid(...args, (err) => next(null, { err: text(err) }));
};

Handler.prototype.kickUid = function (m, session, next) {
  const service = this.app.get('backendSessionService');
  const args = [frontend(m, session), m.uid].concat('reason' in m ? [m.reason] : []);
  service.kickByUid(...args, (err) => next(null, { err: text(err) }));
};

// Pushes. Each answers when the frontends have, and the other at once.

Handler.prototype.pushUids = function (m, session, next) {
  const service = this.app.get('channelService');
  service.pushMessageByUids(m.route, m.msg, m.uids, m.opts, (err, fails) => {
    next(null, { err: text(err), fails });
  });
};

Handler.prototype.pushUidsNoWait = function (m, session, next) {
  const service = this.app.get('channelService');
  service.pushMessageByUids(m.route, m.msg, m.uids, m.opts, () => {});
  next(null, { pushed: true });
};

Handler.prototype.join = function (m, session, next) {
  const channel = this.app.get('channelService').getChannel(m.channel, true);
  next(null, { joined: channel.add(m.uid || session.uid, session.frontendId) });
};

Handler.prototype.leave = function (m, session, next) {
  const channel = this.app.get('channelService').getChannel(m.channel, true);
  next(null, { left: channel.leave(m.uid || session.uid, session.frontendId) });
};

Handler.prototype.channelPush = function (m, session, next) {
  const channel = this.app.get('channelService').getChannel(m.channel, true);
  channel.pushMessage(m.route, m.msg, m.opts, (err, fails) => {
    next(null, { err: text(err), fails });
  });
};

Handler.prototype.bcast = function (m, session, next) {
  const service = this.app.get('channelService');
  service.broadcast('connector', m.route, m.msg, m.opts, (err) => next(null, { err: text(err) }));
};

// Any call of a frontend, as it comes: the values behind the error are in `values`.

Handler.prototype.remoteRaw = function (m, session, next) {
  const { namespace, service, method, args } = m;
  this.app.rpcInvoke(frontend(m, session), { namespace, service, method, args }, (err, ...values) =>
    next(null, { err: text(err), values }),
  );
};

// A remote of the frontend's application, through the stub that the framework makes.

Handler.prototype.remoteUser = function (m, session, next) {
  const remote = this.app.rpc.connector.infoRemote[m.method];
  remote.toServer(frontend(m, session), ...m.args, (err, ...values) =>
    next(null, { err: text(err), values }),
  );
};

// Misfortune.

Handler.prototype.twice = function (m, session, next) {
  next(null, { n: 1 });
  next(null, { n: 2 });
};

Handler.prototype.exit = function () {
  process.exit(3);
};

Handler.prototype.hang = function (m, session, next) {
  const end = Date.now() + m.ms;
  while (Date.now() < end);
  next(null, { hung: m.ms });
};
