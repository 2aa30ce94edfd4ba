// Remotes that frontends call: each method is one kind of answer. Names and answers are those
// of tests/genuine/pomelo, as far as the framework can give them.
'use strict';

exports.default = (app) => new Remote(app);

class Remote {
  constructor(app) {
    this.app = app;
    this.lists = new Map(); // what was noted under one name, oldest first
  }

  async add(a, b) {
    return a + b;
  }

  async whoami() {
    return this.app.getServerId();
  }

  async nothing() {}

  async slow(ms, value) {
    await new Promise((resolve) => setTimeout(resolve, ms));
    return value;
  }

  never() {
    return new Promise(() => {});
  }

  async errOnly() {
    throw new Error('remote boom');
  }

  async errStr() {
    throw 'just a string';
  }

  throwErr() {
    throw new Error('remote throw');
  }

  // An error on one server only.
  async errOn(id) {
    if (id === this.app.getServerId()) {
      throw new Error('boom on ' + id);
    }
    return 1;
  }

  async note(name, value) {
    if (!this.lists.has(name)) {
      this.lists.set(name, []);
    }
    this.lists.get(name).push(value);
  }

  // Events that a frontend tells its delegate.
  async closed(session) {
    await this.note('closed', session);
  }

  async notes(name) {
    return this.lists.get(name) || [];
  }
}
