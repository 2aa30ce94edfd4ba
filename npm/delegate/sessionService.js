// The sessions of one frontend, as its `sessionService` shows them: the bound ones, and those that have sent a message to
// this process.
//
// Bound: the sessions of the frontend. tangelo tells each change and each end of a session. After a notice that it could
// not send it tells all sessions again.
'use strict';

const Session = require('./session');

// Bound: kicked sessions that wait for tangelo's notice; past it the oldest ones are forgotten.
const KICKED_MAX = 10000;

// The names of this process' own changes, which come back with their notices.
const PREFIX = `${Math.random().toString(36).slice(2)}.`;
let lastChange = 0;

module.exports = class SessionService {
  constructor(app, frontendId) {
    this.app = app;
    this.frontendId = frontendId;
    this.sessions = new Map(); // by id
    this.bound = new Map(); // by the text of the uid → list of sessions
    this.kicked = new Set(); // ids of sessions that have ended here and not yet in tangelo
    this.unlisted = new Map(); // number of a shard that lists its sessions → ids that are not in the list so far
    this.listed = new Set(); // numbers of the shards that have listed all their sessions once
    this.earlier = 0; // sessions that began before this process
    this.lost = 0; // sessions whose end was not told
  }

  // Returns the session of a message.
  seen(exported) {
    const { id, uid, remoteAddress } = exported;
    // tangelo sends the address with the first message: who had this id before was a client of an earlier process.
    const before = remoteAddress && this.sessions.get(id);
    if (before) {
      this.end(before);
    }
    if (remoteAddress) {
      this.kicked.delete(id);
    }
    const known = this.sessions.get(id);
    if (known) {
      known.isOwn = true;
      return known;
    }
    const session = new Session(exported, this);
    session.remoteAddress = remoteAddress || session.remoteAddress;
    if (this.kicked.has(id)) {
      return session;
    }
    this.sessions.set(id, session);
    if (uid) {
      this.add(session, uid);
    }
    return session;
  }

  // Takes tangelo's notice of the state of a session after a change.
  changed(state) {
    const { id, uid, change } = state;
    if (this.kicked.has(id)) {
      return;
    }
    const isNew = !this.sessions.has(id);
    const session = this.seen({ ...state, remoteAddress: undefined });
    if (typeof change === 'string' && change.startsWith(PREFIX)) {
      const last = Number(change.slice(PREFIX.length));
      // A frontend makes the changes of a session in their order.
      forget(session, (number) => number <= last);
    }
    this.apply(session, state);
    if (isNew && uid) {
      this.emit('bind_session', session);
    }
  }

  // Takes a part of the list of all sessions of a shard; `last` ends those that are not in it.
  list({ shard, shards, first, last }, states) {
    if (first) {
      const ids = [...this.sessions.keys()];
      this.unlisted.set(shard, new Set(ids.filter((id) => shardOf(id) === shard || shardOf(id) >= shards)));
    }
    const unlisted = this.unlisted.get(shard) || new Set();
    for (const state of states.filter(({ id }) => !this.kicked.has(id))) {
      const isNew = !this.sessions.has(state.id);
      const session = this.seen({ ...state, remoteAddress: undefined });
      this.earlier += isNew && !this.listed.has(shard) ? 1 : 0;
      unlisted.delete(state.id);
      // The notices of these changes are lost.
      forget(session, (number, isAnswered) => isAnswered);
      this.apply(session, state);
    }
    if (last) {
      this.endLost([...unlisted].map((id) => this.sessions.get(id)).filter(Boolean));
      this.unlisted.delete(shard);
      this.reportEarlier(shard, shards);
    }
  }

  // Gives a session the state that tangelo tells, unless changes of this process are missing in it.
  apply(session, { uid, settings, remoteAddress, own }) {
    session.isOwn = own === true;
    session.remoteAddress = remoteAddress || session.remoteAddress;
    if (session.unconfirmed.size > 0) {
      return;
    }
    Object.keys(session.settings).forEach((key) => key in settings || delete session.settings[key]);
    session.set(settings);
    const before = session.uid;
    if (before === uid) {
      return;
    }
    if (before) {
      this.remove(session);
      this.emit('unbind_session', session);
      session.emit('unbind', before);
    }
    if (uid) {
      this.add(session, uid);
      this.emit('bind_session', session);
      session.emit('bind', uid);
    }
  }

  // Tells the application, in one of the delegates only: a frontend tells it once.
  emit(event, session, shown = session) {
    if (session.isOwn) {
      this.app.event.emit(event, shown);
    }
  }

  endLost(sessions) {
    this.lost += sessions.length;
    if (sessions.length > 0) {
      console.warn(`tangelo/delegate: no notice of the ends of ${sessions.length} sessions of ${this.frontendId} `
        + `(${this.lost} in all)`);
    }
    sessions.forEach((session) => this.end(session));
  }

  // Logs once how many sessions were there before this process.
  reportEarlier(shard, shards) {
    this.listed.add(shard);
    if (this.listed.size === shards && this.earlier > 0) {
      console.warn(`tangelo/delegate: ${this.earlier} sessions of ${this.frontendId} began before this process: what an `
        + 'earlier delegate has added to them, such as listeners, is lost');
      this.earlier = 0;
    }
  }

  // Ends a session that has closed. One that was kicked here has ended before.
  closed({ id, frontendId, uid, settings, own }) {
    if (this.kicked.delete(id)) {
      return;
    }
    const session = this.sessions.get(id) || new Session({ id, frontendId, settings }, this);
    session.isOwn = own === true;
    session.set(settings);
    this.end(session, { uid });
  }

  // Ends a session here, and tells its listeners.
  end(session, { uid = session.uid, reason } = {}) {
    this.remove(session);
    this.sessions.delete(session.id);
    session.isOnline = false;
    session.uid = uid;
    const closed = session.toFrontendSession();
    this.emit('close_session', session, closed);
    session.emit('closed', closed, reason);
  }

  get(sid) {
    return this.sessions.get(sid);
  }

  getClientAddressBySessionId(sid) {
    const session = this.sessions.get(sid);
    return session ? session.remoteAddress : null;
  }

  getByUid(uid) {
    return this.bound.get(String(uid));
  }

  getSessionsCount() {
    return this.sessions.size;
  }

  forEachSession(cb) {
    this.sessions.forEach((session) => cb(session));
  }

  forEachBindedSession(cb) {
    this.bound.forEach((sessions) => sessions.slice().forEach((session) => cb(session)));
  }

  // The changes below are seen here at once, as in a frontend; one that the frontend refuses is taken back.

  bind(sid, uid, cb) {
    const session = this.sessions.get(sid);
    const isNew = session && !session.uid;
    if (isNew) {
      this.add(session, uid);
    }
    this.change('bind', sid, [uid], (error, isCurrent) => {
      if (isNew && !error) {
        this.emit('bind_session', session);
        session.emit('bind', uid);
      } else if (isNew && isCurrent) {
        this.remove(session);
      }
      finish(cb, error);
    });
  }

  unbind(sid, uid, cb) {
    const session = this.sessions.get(sid);
    const isBound = session && session.uid === uid;
    if (isBound) {
      this.remove(session);
    }
    this.change('unbind', sid, [uid], (error, isCurrent) => {
      if (isBound && !error) {
        this.emit('unbind_session', session);
        session.emit('unbind', uid);
      } else if (isBound && isCurrent && session.isOnline) {
        this.add(session, uid);
      }
      finish(cb, error);
    });
  }

  import(sid, key, value, cb) {
    const session = this.sessions.get(sid);
    if (session) {
      session.set(key, value);
    }
    this.change('push', sid, [key, value], (error) => finish(cb, error));
  }

  importAll(sid, settings, cb) {
    const session = this.sessions.get(sid);
    if (session) {
      session.set(settings);
    }
    this.change('pushAll', sid, [settings], (error) => finish(cb, error));
  }

  // Asks the frontend for a change of a session. The callback gets the error, and whether the session here still has the
  // change.
  change(method, sid, args, cb) {
    const session = this.sessions.get(sid);
    const unconfirmed = session ? session.unconfirmed : new Map();
    lastChange += 1;
    const number = lastChange;
    unconfirmed.set(number, false);
    const message = {
      namespace: 'sys', service: 'sessionRemote', method, args: [sid, ...args], change: PREFIX + number,
    };
    this.app.rpcInvoke(this.frontendId, message, (error) => {
      const isCurrent = unconfirmed.has(number);
      if (error) {
        unconfirmed.delete(number);
      } else if (isCurrent) {
        unconfirmed.set(number, true);
      }
      cb(error, isCurrent);
    });
  }

  // As in the framework, sessions have ended before the callback of a kick.

  kick(uid, reason, cb) {
    if (typeof reason === 'function') {
      return this.kick(uid, 'kick', reason);
    }
    const ended = [...this.getByUid(uid) || []];
    ended.forEach((session) => this.endKicked(session, reason));
    this.backend.kickByUid(this.frontendId, uid, reason, (error) => this.kickEnded(ended, error, cb));
  }

  kickBySessionId(sid, reason, cb) {
    if (typeof reason === 'function') {
      return this.kickBySessionId(sid, 'kick', reason);
    }
    const ended = [this.sessions.get(sid)].filter(Boolean);
    ended.forEach((session) => this.endKicked(session, reason));
    this.backend.kickBySid(this.frontendId, sid, reason, (error) => this.kickEnded(ended, error, cb));
  }

  endKicked(session, reason) {
    this.kicked.add(session.id);
    if (this.kicked.size > KICKED_MAX) {
      this.kicked.delete(this.kicked.values().next().value);
    }
    this.end(session, { reason });
  }

  kickEnded(sessions, error, cb) {
    if (error) {
      sessions.forEach(({ id }) => this.kicked.delete(id));
    }
    finish(cb);
  }

  sendMessageByUid(uid, message) {
    if (!this.getByUid(uid)) {
      return false;
    }
    const to = [{ uid, sid: this.frontendId }];
    this.app.get('channelService').pushMessageByUids(message.route, message.body, to, () => {});
    return true;
  }

  get backend() {
    return this.app.get('backendSessionService');
  }

  // As in the framework, a list that `getByUid` returned changes with these two.

  add(session, uid) {
    session.uid = uid;
    const key = String(uid);
    if (!this.bound.has(key)) {
      this.bound.set(key, []);
    }
    this.bound.get(key).push(session);
  }

  remove(session) {
    const key = String(session.uid);
    const sessions = this.bound.get(key) || [];
    if (sessions.includes(session)) {
      sessions.splice(sessions.indexOf(session), 1);
      if (sessions.length === 0) {
        this.bound.delete(key);
      }
    }
    session.uid = null;
  }
};

const { prototype } = module.exports;

// Pinus: the same functions with promises.
for (const name of ['kick', 'kickBySessionId', 'bind', 'unbind', 'import', 'importAll']) {
  prototype[`a${name}`] = function (...args) {
    return new Promise((resolve, reject) => {
      this[name](...args, (error, result) => (error ? reject(error) : resolve(result)));
    });
  };
}

// Forgets changes of a session that count as confirmed.
function forget({ unconfirmed }, isConfirmed) {
  unconfirmed.forEach((isAnswered, number) => isConfirmed(number, isAnswered) && unconfirmed.delete(number));
}

// The last eight bits of an id are the number of its shard.
function shardOf(id) {
  return id % 256;
}

function finish(cb, error) {
  if (typeof cb === 'function') {
    cb(...(error ? [asError(error)] : []));
  }
}

// Makes an Error of what came from another server, which has only its stack.
function asError(error) {
  if (error instanceof Error || !error.stack) {
    return error;
  }
  const [line] = error.stack.split('\n');
  return Object.assign(new Error(line.replace(/^\w*Error: /, '')), error);
}
