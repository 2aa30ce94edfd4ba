// The backend half of the reference application: each method is one kind of answer.
'use strict';

module.exports = (app) => new Handler(app);

function Handler(app) {
  this.app = app;
  this.lists = new Map(); // one session's list of one name → what its notes said, oldest first
}

// What the frontend sent of the session. Pomelo's own `export` of a backend session loses its
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

// Misfortune.

Handler.prototype.exit = function () {
  process.exit(3);
};

Handler.prototype.hang = function (m, session, next) {
  const end = Date.now() + m.ms;
  while (Date.now() < end);
  next(null, { hung: m.ms });
};
