// The sessions of all frontends, for code that asks the application of this process and not that of a frontend.
'use strict';

module.exports = class AllSessions {
  constructor(views) {
    this.views = views; // by the id of the frontend
  }

  get services() {
    return [...this.views.values()].map((view) => view.sessions);
  }

  // Returns a session by its id. Sessions of two frontends may have the same one: then nobody knows which is meant.
  get(sid) {
    const found = this.services.map((service) => service.get(sid)).filter(Boolean);
    return found.length === 1 ? found[0] : undefined;
  }

  getClientAddressBySessionId(sid) {
    const session = this.get(sid);
    return session ? session.remoteAddress : null;
  }

  getByUid(uid) {
    const sessions = this.services.flatMap((service) => service.getByUid(uid) || []);
    return sessions.length > 0 ? sessions : undefined;
  }

  getSessionsCount() {
    return this.services.reduce((count, service) => count + service.getSessionsCount(), 0);
  }

  forEachSession(cb) {
    this.services.forEach((service) => service.forEachSession(cb));
  }

  forEachBindedSession(cb) {
    this.services.forEach((service) => service.forEachBindedSession(cb));
  }

  kick(uid, reason, cb) {
    this.each(this.services, (service, done) => service.kick(uid, ...reasonOf(reason), done), cb || reason);
  }

  kickBySessionId(sid, reason, cb) {
    const session = this.get(sid);
    const services = session ? [session.__sessionService__] : [];
    this.each(services, (service, done) => service.kickBySessionId(sid, ...reasonOf(reason), done), cb || reason);
  }

  sendMessageByUid(uid, message) {
    return this.services.filter((service) => service.sendMessageByUid(uid, message)).length > 0;
  }

  // Calls `act` for each service, and `cb` once all have called back.
  each(services, act, cb) {
    let missing = services.length;
    const finish = () => typeof cb === 'function' && process.nextTick(cb);
    const done = () => {
      missing -= 1;
      if (missing === 0) {
        finish();
      }
    };
    services.forEach((service) => act(service, done));
    if (services.length === 0) {
      finish();
    }
  }
};

const { prototype } = module.exports;

for (const name of ['bind', 'unbind', 'import', 'importAll']) {
  prototype[name] = function (sid, ...args) {
    const session = this.get(sid);
    const cb = args[args.length - 1];
    if (session) {
      session.__sessionService__[name](sid, ...args);
    } else if (typeof cb === 'function') {
      process.nextTick(cb, new Error(`session does not exist, sid: ${sid}`));
    }
  };
}

// Pinus: the same functions with promises.
for (const name of ['kick', 'kickBySessionId', 'bind', 'unbind', 'import', 'importAll']) {
  prototype[`a${name}`] = function (...args) {
    return new Promise((resolve, reject) => {
      this[name](...args, (error, result) => (error ? reject(error) : resolve(result)));
    });
  };
}

// As in the framework: a callback in the place of the reason means the default reason.
function reasonOf(reason) {
  return typeof reason === 'function' ? [] : [reason];
}
