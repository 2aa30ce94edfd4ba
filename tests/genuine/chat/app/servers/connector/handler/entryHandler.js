// Lets players into rooms; examples/pomelo_chat.rs does the same.
'use strict';

module.exports = (app) => new Handler(app);

function Handler(app) {
  this.app = app;
}

Handler.prototype.enter = function (m, session, next) {
  const { app } = this;
  const uid = m.username + '*' + m.rid;
  if (session.uid || app.get('sessionService').getByUid(uid)) {
    return next(null, { code: 500, error: true });
  }
  session.bind(uid);
  session.set('rid', m.rid);
  session.push('rid', (err) => {
    if (err) return next(err);
    session.on('closed', (closed) => leave(app, closed));
    const { add } = app.rpc.chat.chatRemote;
    add(session, uid, app.getServerId(), m.rid, true, (err, users) => next(err, { users }));
  });
};

const leave = (app, session) => {
  const { kick } = app.rpc.chat.chatRemote;
  kick(session, session.uid, app.getServerId(), session.get('rid'), (err) => {
    if (err) console.error('still in its room: ' + session.uid);
  });
};
