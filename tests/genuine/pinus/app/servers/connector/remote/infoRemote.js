// Remotes of a frontend that backends call. A backend makes its stubs from this file too.
'use strict';

exports.default = (app) => new Remote(app);

class Remote {
  constructor(app) {
    this.app = app;
  }

  async who(name) {
    return { name, by: this.app.getServerId() };
  }

  async later(value) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    return value;
  }

  async nothing() {}

  async fail(text) {
    throw new Error(text);
  }

  boom() {
    throw new Error('boom');
  }

  async add(a, b) {
    return this.app.rpc.chat.chatRemote.add(null, a, b);
  }

  // Only here, so that backends have a stub of it.
  async unknown() {}
}
