// The sessions of one frontend, as its `sessionService` shows them: those that have sent a message to this process.
//
// Bound: the sessions of the frontend. tangelo tells each end of a session, and `check` finds those whose notice was lost.
'use strict';

const Session = require('./session');

// Bound: kicked sessions that wait for tangelo's notice; past it the oldest ones are forgotten.
const KICKED_MAX = 10000;

module.exports = class SessionService {
  constructor(app, frontendId) {
    this.app = app;
    this.frontendId = frontendId;
    this.sessions = new Map(); // by id
    this.bound = new Map(); // by the text of the uid → list of sessions
    this.kicked = new Set(); // ids of sessions that have ended here and not yet in tangelo
    this.unchecked = this.sessions.values();
    this.lost = 0; // sessions whose end `check` has found
  }

  // Returns the session of a message. Until this process has changed them, uid and settings are those of the message,
  // because a message can leave the frontend before a change and arrive after it.
  seen(exported) {
    const { id, remoteAddress } = exported;
    // tangelo sends the address with the first message: who had this id before was a client of an earlier process.
    const before = remoteAddress && this.sessions.get(id);
    if (before) {
      this.end(before);
    }
    if (remoteAddress) {
      this.kicked.delete(id);
    }
    const session = this.sessions.get(id) || new Session(exported, this);
    if (!this.kicked.has(id)) {
      this.sessions.set(id, session);
    }
    session.remoteAddress = remoteAddress || session.remoteAddress;
    if (session.unanswered === 0) {
      session.set(exported.settings);
    }
    if (!session.uid && exported.uid && !session.changed && !this.kicked.has(id)) {
      this.add(session, exported.uid);
    }
    return session;
  }

  // Ends a session that has closed. One that was kicked here has ended before.
  closed({ id, frontendId, uid, settings }) {
    if (this.kicked.delete(id)) {
      return;
    }
    const session = this.sessions.get(id) || new Session({ id, frontendId, settings }, this);
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
    this.app.event.emit('close_session', closed);
    session.emit('closed', closed, reason);
  }

  // Asks the frontend for the next sessions in turn, and ends those that it does not have.
  check(count) {
    for (let number = 0; number < count; number += 1) {
      const { value: session, done } = this.unchecked.next();
      if (done) {
        this.unchecked = this.sessions.values();
        return;
      }
      const { id, frontendId } = session;
      this.backend.get(frontendId, id, (error, found) => {
        if (!error && !found && session.isOnline) {
          this.lost += 1;
          console.warn(`tangelo/delegate: no notice of the end of session ${id} of ${frontendId} (${this.lost} in all)`);
          this.closed({ id, frontendId, uid: session.uid, settings: {} });
        }
      });
    }
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
      session.changed = true;
      this.add(session, uid);
    }
    this.change('bind', sid, [uid], (error) => {
      if (isNew && error) {
        session.changed = false;
        this.remove(session);
      } else if (isNew) {
        this.app.event.emit('bind_session', session);
        session.emit('bind', uid);
      }
      finish(cb, error);
    });
  }

  unbind(sid, uid, cb) {
    const session = this.sessions.get(sid);
    const isBound = session && session.uid === uid;
    if (isBound) {
      session.changed = true;
      this.remove(session);
    }
    this.change('unbind', sid, [uid], (error) => {
      if (isBound && error && session.isOnline) {
        this.add(session, uid);
      } else if (isBound) {
        this.app.event.emit('unbind_session', session);
        session.emit('unbind', uid);
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

  // Asks the frontend for a change of a session.
  change(method, sid, args, cb) {
    const session = this.sessions.get(sid) || { unanswered: 0 };
    session.unanswered += 1;
    this.backend[method](this.frontendId, sid, ...args, (error) => {
      session.unanswered -= 1;
      cb(error);
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
