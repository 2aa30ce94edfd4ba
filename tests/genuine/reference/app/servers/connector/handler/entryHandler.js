// The frontend half of the reference application: each method is one thing that a client can see.
'use strict';

const { logs, write } = require('../../../../filters');

module.exports = (app) => new Handler(app);

function Handler(app) {
  this.app = app;
}

const text = (err) => (err ? err.message || String(err) : null);

const methods = {
  // The message as it arrived.

  echo(m, session, next) {
    next(null, Object.assign({}, m));
  },

  echoProto(m, session, next) {
    const { __route__, ...rest } = m;
    next(null, rest);
  },

  kind(m, session, next) {
    const type = m === null ? 'null' : Array.isArray(m) ? 'array' : typeof m;
    next(null, { type, val: m });
  },

  route(m, session, next) {
    next(null, { route: m.__route__, hasRoute: m.__route__ !== undefined });
  },

  args(a, b, session, next) {
    next(null, { a, b, sid: session.id, n: arguments.length });
  },

  // Responses.

  noResp(m, session, next) {
    next(null);
  },

  undefResp(m, session, next) {
    next();
  },

  arrResp(m, session, next) {
    next(null, [1, 2, 3]);
  },

  strResp(m, session, next) {
    next(null, 'hello');
  },

  numResp(m, session, next) {
    next(null, 42);
  },

  zeroResp(m, session, next) {
    next(null, 0);
  },

  falseResp(m, session, next) {
    next(null, false);
  },

  utf8(m, session, next) {
    next(null, { s: 'héllo 世界 😀' });
  },

  opts(m, session, next) {
    next(null, { o: 1 }, { some: 'option' });
  },

  twice(m, session, next) {
    next(null, { n: 1 });
    next(null, { n: 2 });
  },

  never() {},

  slow(m, session, next) {
    setTimeout(() => next(null, { slow: m.ms, tag: m.tag }), m.ms);
  },

  // Errors.

  errOnly(m, session, next) {
    next(new Error('boom'));
  },

  errResp(m, session, next) {
    next(new Error('boom'), { msg: 'bad' });
  },

  errCode(m, session, next) {
    next(new Error('boom'), { code: 417, msg: 'bad' });
  },

  errCode0(m, session, next) {
    next(new Error('boom'), { code: 0, msg: 'bad' });
  },

  errStr(m, session, next) {
    next('just a string');
  },

  errStrResp(m, session, next) {
    next(new Error('boom'), 'hello');
  },

  throwErr() {
    throw new Error('thrown');
  },

  // The session.

  enter(m, session, next) {
    session.bind(m.uid, (err) => next(null, { err: text(err), uid: session.uid }));
  },

  unbind(m, session, next) {
    session.unbind(m.uid, (err) => next(null, { err: text(err), uid: session.uid }));
  },

  setnp(m, session, next) {
    session.set(m.k, m.v);
    next(null, session.export());
  },

  setp(m, session, next) {
    session.set(m.k, m.v);
    session.push(m.k, (err) => next(null, { err: text(err) }));
  },

  getp(m, session, next) {
    const value = session.get(m.k);
    next(null, { v: value === undefined ? '<undefined>' : value });
  },

  pushall(m, session, next) {
    Object.keys(m.kv).forEach((key) => session.set(key, m.kv[key]));
    session.pushAll((err) => next(null, { err: text(err) }));
  },

  exportS(m, session, next) {
    next(null, session.export());
  },

  addr(m, session, next) {
    next(null, this.app.get('sessionService').getClientAddressBySessionId(session.id));
  },

  // The server.

  stat(m, session, next) {
    next(null, this.app.components.__connection__.getStatisticsInfo());
  },

  sess(m, session, next) {
    const service = this.app.get('sessionService');
    const counts = {};
    service.forEachBindedSession((of) => {
      counts[of.uid] = (counts[of.uid] || 0) + 1;
    });
    const uids = Object.fromEntries(Object.entries(counts).sort());
    next(null, { count: service.getSessionsCount(), uids });
  },

  log(m, session, next) {
    next(null, { lines: logs.get(m.name) || [] });
  },

  clearLog(m, session, next) {
    logs.clear();
    next(null);
  },

  // Pushes.

  connSend(m, session, next) {
    const connector = this.app.components.__connector__;
    const opts = { type: 'push', userOptions: {} };
    let answered = false;
    // An empty message calls back twice: first with the error.
    connector.send(null, m.route, m.body, [session.id], opts, (err) => {
      if (!answered) {
        answered = true;
        next(null, { err: text(err) });
      }
    });
  },

  pushN(m, session, next) {
    this.push(m.n, session);
    next(null, { n: m.n });
  },

  pushThenKick(m, session) {
    this.push(3, session);
    this.kick(session, 'pk');
  },

  bcast(m, session, next) {
    const service = this.app.get('channelService');
    service.broadcast('connector', m.route, m.body, m.opts, (err) => {
      next(null, { err: text(err) });
    });
  },

  // Kicks.

  kickSelf(m, session, next) {
    this.kick(session, m.reason);
    next(null, { late: true });
  },

  kickCb(m, session, next) {
    this.kick(session, (err) => next(null, { err: text(err) }));
  },

  kickNoReason(m, session, next) {
    this.kick(session);
    next(null, { late: true });
  },

  respThenKick(m, session, next) {
    next(null, { ok: 1 });
    this.kick(session, 'bye');
  },

  kickUid(m, session, next) {
    this.app.get('sessionService').kick(m.uid, m.reason, (err) => next(null, { err: text(err) }));
  },
};

for (const [name, method] of Object.entries(methods)) {
  Handler.prototype[name] = function (m) {
    write(m, 'handler ' + name);
    return method.apply(this, arguments);
  };
}

// No routes: what cannot be enumerated is not in the dictionary.
const helper = (name, value) => Object.defineProperty(Handler.prototype, name, { value });

helper('push', function (n, session) {
  const connector = this.app.components.__connector__;
  const opts = { type: 'push', userOptions: {} };
  for (let i = 0; i < n; i += 1) {
    connector.send(null, 'onN', { i }, [session.id], opts, () => {});
  }
});

helper('kick', function (session, ...args) {
  this.app.get('sessionService').kickBySessionId(session.id, ...args);
});
