// Handlers of a connector, as projects write them: they wait for hardly anything.
'use strict';

const { elsewhere, log } = require('../../../log');

module.exports = (app) => new Handler(app);

function Handler(app) {
  this.app = app;
}

// The server, as the handler sees it.
Handler.prototype.view = function (m, session, next) {
  const { app } = this;
  const servers = [app.curServer, app.getCurServer(), app.get('curServer')];
  setTimeout(() => next(null, {
    elsewhere: elsewhere().getServerId(),
    ids: [app.serverId, app.getServerId(), app.get('serverId'), ...servers.map((server) => server.id), session.frontendId],
    types: [app.serverType, app.getServerType(), app.get('serverType'), ...servers.map((server) => server.serverType)],
    isFrontend: [app.isFrontend(), app.isBackend(), app.isFrontend(servers[0])],
    greeting: app.get('greeting'),
    message: m,
  }), 1);
};

// The client's address, in each way to ask for it.
Handler.prototype.address = function (m, session, next) {
  const { ip, port } = this.app.get('sessionService').getClientAddressBySessionId(session.id);
  const { remoteAddress } = session.__session__.__socket__;
  next(null, { ip, port: typeof port, same: remoteAddress.ip === ip && remoteAddress.port === port });
};

Handler.prototype.login = function (m, session, next) {
  const id = this.app.get('serverId');
  session.bind(m.uid);
  session.set('room', m.room);
  session.push('room');
  session.on('closed', (closed, reason) => log.push(`closed ${closed.uid} of ${closed.get('room')}: ${reason}`));
  session.once('unbind', (uid) => log.push(`unbind ${uid}`));
  this.app.get('channelService').pushMessageByUids('onLogin', { uid: m.uid }, [{ uid: m.uid, sid: id }], () => {});
  next(null, { code: 200 });
};

Handler.prototype.room = function (m, session, next) {
  next(null, { uid: session.uid, room: session.get('room'), all: session.settings });
};

// A bind that fails; nobody waits for it.
Handler.prototype.rebind = function (m, session, next) {
  session.bind('somebody else', (err) => log.push(`not bound: ${err.message}`));
  next(null, { code: 200 });
};

Handler.prototype.change = function (m, session, next) {
  session.set('room', m.room);
  session.set('more', [1]);
  session.pushAll();
  next(null, { code: 200 });
};

Handler.prototype.logout = function (m, session, next) {
  session.unbind(session.uid);
  next(null, { code: 200 });
};

Handler.prototype.online = function (m, session, next) {
  const service = this.app.get('sessionService');
  const bound = [];
  service.forEachBindedSession((other) => bound.push(other.uid));
  const sessions = service.getByUid(m.uid) || [];
  next(null, {
    same: service === this.app.sessionService,
    rooms: sessions.map((other) => other.get('room')),
    found: sessions.map((other) => service.get(other.id).uid),
    bound: bound.includes(m.uid),
  });
};

Handler.prototype.kick = function (m, session, next) {
  this.app.get('sessionService').kick(m.uid, m.reason, () => next(null, { code: 200 }));
};

Handler.prototype.kickOne = function (m, session, next) {
  const service = this.app.get('sessionService');
  const [other] = service.getByUid(m.uid);
  service.kickBySessionId(other.id, () => next(null, { code: 200 }));
};

Handler.prototype.fail = function (m, session, next) {
  next(new Error('no'), { msg: 'no' });
};

Handler.prototype.process = function (m, session, next) {
  next(null, { pid: process.pid });
};

Handler.prototype.log = function (m, session, next) {
  next(null, { lines: log.filter((line) => line.includes(m.part)) });
};
