// A session of a frontend, from its first notice or message here to its end.
'use strict';

const { EventEmitter } = require('events');
const FrontendSession = require('./frontendSession');

module.exports = class Session extends EventEmitter {
  constructor({ id, frontendId, settings }, service) {
    super();
    this.id = id;
    this.frontendId = frontendId;
    this.uid = null;
    this.settings = { ...settings };
    this.isOnline = true;
    this.isOwn = true; // its messages come to this process, and not to another delegate
    this.remoteAddress = { ip: '', port: 0 };
    // Changes of this process whose notice has not come yet: number → whether the frontend has answered. Until it has
    // come, states of the session are older than what is here.
    Object.defineProperty(this, 'unconfirmed', { value: new Map() });
    Object.defineProperty(this, '__sessionService__', { value: service });
  }

  // As much of the framework's socket as there is.
  get __socket__() {
    return { remoteAddress: this.remoteAddress };
  }

  get(key) {
    return this.settings[key];
  }

  set(key, value) {
    Object.assign(this.settings, typeof key === 'object' ? key : { [key]: value });
  }

  // Closes the client's connection.
  closed(reason) {
    this.__sessionService__.kickBySessionId(this.id, reason);
  }

  toFrontendSession() {
    return new FrontendSession(this, { uid: this.uid, settings: { ...this.settings } });
  }
};
