// Configures one of each thing that `tangelo init` has an answer for.
'use strict';

const net = require('net');
const pomelo = require('pomelo');

const app = pomelo.createApp();
app.set('name', 'moving');

// Its own listener, which must not open.
net.createServer().listen(1);

const { direct, buffer } = pomelo.pushSchedulers;
let turn = 0;

app.configure('production|development', 'connector', () => {
  app.set('connectorConfig', {
    connector: pomelo.connectors.hybridconnector,
    heartbeat: 30,
    timeout: 90,
    useDict: true,
    useHostFilter: true,
    setNoDelay: true, ssl: { type: 'wss' },
    checkClient: (type, version) => version !== '0.0.1',
    handshake: (msg, cb) => cb(null, {}),
    blacklistFun: (cb) => cb(null, []),
  });
  app.set('sessionConfig', { singleSession: true });
  app.set('pushSchedulerConfig', {
    scheduler: [
      { id: 'now', scheduler: direct },
      { id: 'slow', scheduler: buffer, options: { flushInterval: 100 } },
    ],
    selector: (reqId, route, msg, recvs, opts, cb) => cb('now'),
  });
  app.set('proxyConfig', { timeout: 10000 });
  app.set('serverConfig', { enableForwardLog: true });
  app.globalFilter(pomelo.filters.timeout(2000, 100));
  app.filter(pomelo.filters.serial());
  app.globalBefore((msg, session, next) => next());
  app.route('room', (session, msg, view, cb) => {
    const rooms = view.getServersByType('room');
    cb(null, rooms[Math.abs(require('crc').crc32(session.get('rid'))) % rooms.length].id);
  });
  app.route('area', (session, msg, view, cb) => cb(null, session.get('area')));
  app.route('log', (session, msg, view, cb) => cb(null, 'log-7'));
  app.route('reads', (session, msg, view, cb) => cb(null, msg.args[0].server));
  app.route('lanes', (session, msg, view, cb) => {
    const lanes = view.getServersByType('lanes');
    cb(null, lanes[session.get('lane') % lanes.length].id);
  });
  app.route('connector', (session, msg, view, cb) => cb(null, session.frontendId));
  app.route('counts', (session, msg, view, cb) => {
    const servers = view.getServersByType('counts');
    turn += 1;
    cb(null, servers[turn % servers.length].id);
  });
});

app.start();
