// The sessions of all frontends, for code that asks the application of this process and not that of a frontend.
'use strict';

module.exports = class AllSessions {
  constructor(views) {
    this.views = views; // by the id of the frontend
  }

  get services() {
    return [...this.views.values()].map((view) => view.sessions);
  }

  get(sid) {
    return this.services.map((service) => service.get(sid)).find(Boolean);
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
    const services = this.services.filter((service) => service.get(sid));
    this.each(services, (service, done) => service.kickBySessionId(sid, ...reasonOf(reason), done), cb || reason);
  }

  sendMessageByUid(uid, message) {
    return this.services.filter((service) => service.sendMessageByUid(uid, message)).length > 0;
  }

  akick(uid, reason) {
    return new Promise((done) => this.kick(uid, reason, done));
  }

  akickBySessionId(sid, reason) {
    return new Promise((done) => this.kickBySessionId(sid, reason, done));
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

// As in the framework: a callback in the place of the reason means the default reason.
function reasonOf(reason) {
  return typeof reason === 'function' ? [] : [reason];
}
