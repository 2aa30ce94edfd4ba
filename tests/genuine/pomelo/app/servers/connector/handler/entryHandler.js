// The connector's own handlers: a delegate, a backend of another type, runs them as they are.
'use strict';

module.exports = (app) => new Handler(app);

function Handler(app) {
  this.app = app;
}

Handler.prototype.enter = function (m, session, next) {
  session.bind(m.uid, (err) => {
    if (err) return next(err);
    session.set('room', m.room);
    session.push('room', (err) => {
      next(err, { by: this.app.getServerType(), route: m.__route__, uid: session.uid });
    });
  });
};

Handler.prototype.room = function (m, session, next) {
  next(null, { uid: session.uid, room: session.get('room') });
};
