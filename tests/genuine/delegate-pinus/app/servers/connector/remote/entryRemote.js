// Remotes of a connector that backends call.
'use strict';

exports.default = (app) => new Remote(app);

class Remote {
  constructor(app) {
    this.app = app;
  }

  async where() {
    return [this.app.getServerId(), this.app.getServerType(), this.app.isFrontend()];
  }

  async kick(uid) {
    const service = this.app.get('sessionService');
    const sessions = service.getByUid(uid) || [];
    const { length } = sessions;
    await service.akick(uid, 'by a remote');
    return length;
  }

  async fail(text) {
    throw new Error(text);
  }

  boom() {
    throw new Error('boom');
  }
}
