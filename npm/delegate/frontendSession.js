// The session of one message, as a handler of a frontend gets it.
'use strict';

module.exports = class FrontendSession {
  constructor(session, { uid, settings }) {
    this.id = session.id;
    this.frontendId = session.frontendId;
    this.uid = uid;
    this.settings = settings;
    // As in the framework; not seen by loops over the members.
    Object.defineProperty(this, '__session__', { value: session });
    Object.defineProperty(this, '__sessionService__', { value: session.__sessionService__ });
  }

  bind(uid, cb) {
    const before = this.uid;
    this.uid = uid;
    this.__sessionService__.bind(this.id, uid, (error) => {
      if (error) {
        this.uid = before;
      }
      invoke(cb, error);
    });
  }

  unbind(uid, cb) {
    const before = this.uid;
    this.uid = null;
    this.__sessionService__.unbind(this.id, uid, (error) => {
      if (error) {
        this.uid = before;
      }
      invoke(cb, error);
    });
  }

  set(key, value) {
    this.settings[key] = value;
  }

  get(key) {
    return this.settings[key];
  }

  push(key, cb) {
    this.__sessionService__.import(this.id, key, this.get(key), cb);
  }

  pushAll(cb) {
    this.__sessionService__.importAll(this.id, this.settings, cb);
  }

  export() {
    const { id, frontendId, uid, settings } = this;
    return { id, frontendId, uid, settings };
  }

  get remoteAddress() {
    return this.__session__.remoteAddress;
  }

  get isOnline() {
    return this.__session__.isOnline;
  }
};

const { prototype } = module.exports;

// Listeners belong to the session itself, and stay after the message.
for (const name of ['on', 'once', 'addListener', 'off', 'removeListener', 'removeAllListeners', 'emit', 'listeners', 'listenerCount']) {
  prototype[name] = function (...args) {
    return this.__session__[name](...args);
  };
}

// Pinus: the same functions with promises.
for (const name of ['bind', 'unbind', 'push', 'pushAll']) {
  prototype[`a${name}`] = function (...args) {
    return new Promise((resolve, reject) => {
      this[name](...args, (error, result) => (error ? reject(error) : resolve(result)));
    });
  };
}

function invoke(cb, error) {
  if (typeof cb === 'function') {
    cb(error);
  }
}
