// The connector's own handlers: a delegate, a backend of another type, runs them as they are.
'use strict';

exports.default = (app) => new Handler(app);

class Handler {
  constructor(app) {
    this.app = app;
  }

  async enter(m, session) {
    await session.abind(m.uid);
    session.set('room', m.room);
    await session.apush('room');
    return { by: this.app.getServerType(), uid: session.uid };
  }

  async room(m, session) {
    return { uid: session.uid, room: session.get('room') };
  }
}
