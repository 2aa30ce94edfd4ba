// Handlers of a connector, as projects write them: they wait for hardly anything.
'use strict';

const { elsewhere, log } = require('../../../log');

exports.default = (app) => new Handler(app);

class Handler {
  constructor(app) {
    this.app = app;
  }

  // The server, as the handler sees it.
  async view(m, session) {
    const { app } = this;
    const servers = [app.curServer, app.getCurServer(), app.getCurrentServer(), app.get('curServer')];
    await new Promise((done) => setTimeout(done, 1));
    return {
      elsewhere: elsewhere().getServerId(),
      ids: [app.serverId, app.getServerId(), app.get('serverId'), ...servers.map((server) => server.id), session.frontendId],
      types: [app.serverType, app.getServerType(), app.get('serverType'), ...servers.map((server) => server.serverType)],
      isFrontend: [app.isFrontend(), app.isBackend(), app.isFrontend(servers[0])],
      greeting: app.get('greeting'),
      message: m,
    };
  }

  // The client's address, in each way to ask for it.
  async address(m, session) {
    const { ip, port } = this.app.get('sessionService').getClientAddressBySessionId(session.id);
    const { remoteAddress } = session;
    const same = remoteAddress.ip === ip && remoteAddress.port === port;
    return { ip, port: typeof port, same, socket: session.__session__.__socket__.remoteAddress.port === port };
  }

  async login(m, session) {
    const id = this.app.get('serverId');
    session.bind(m.uid);
    session.set('room', m.room);
    session.push('room');
    session.on('closed', (closed, reason) => log.push(`closed ${closed.uid} of ${closed.get('room')}: ${reason}`));
    session.once('unbind', (uid) => log.push(`unbind ${uid}`));
    this.app.get('channelService').pushMessageByUids('onLogin', { uid: m.uid }, [{ uid: m.uid, sid: id }], () => {});
    return { code: 200 };
  }

  async room(m, session) {
    return { uid: session.uid, room: session.get('room'), all: session.settings };
  }

  // A bind that fails; nobody waits for it.
  async rebind(m, session) {
    session.bind('somebody else', (err) => log.push(`not bound: ${err.message}`));
    return { code: 200 };
  }

  async change(m, session) {
    session.set('room', m.room);
    session.set('more', [1]);
    session.pushAll();
    return { code: 200 };
  }

  async logout(m, session) {
    session.unbind(session.uid);
    return { code: 200 };
  }

  async online(m) {
    const service = this.app.get('sessionService');
    const bound = [];
    service.forEachBindedSession((other) => bound.push(other.uid));
    const sessions = service.getByUid(m.uid) || [];
    return {
      same: service === this.app.sessionService,
      rooms: sessions.map((other) => other.get('room')),
      found: sessions.map((other) => service.get(other.id).uid),
      bound: bound.includes(m.uid),
    };
  }

  async kick(m) {
    await this.app.get('sessionService').akick(m.uid, m.reason);
    return { code: 200 };
  }

  async kickOne(m) {
    const service = this.app.get('sessionService');
    const [other] = service.getByUid(m.uid);
    await new Promise((done) => service.kickBySessionId(other.id, done));
    return { code: 200 };
  }

  async fail() {
    throw new Error('no');
  }

  async process() {
    return { pid: process.pid };
  }

  async log(m) {
    return { lines: log.filter((line) => line.includes(m.part)) };
  }
}
