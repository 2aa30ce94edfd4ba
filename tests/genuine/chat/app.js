// One server of a small chat cluster: rooms live on the backends, and a room's name decides which one.
// Which server it is, is told on the command line, as Pomelo does it:
//   node app.js env=development type=master
//   node app.js env=development id=chat-1 host=127.0.0.1 port=6050 serverType=chat
// The connector's Rust twin is examples/pomelo_chat.rs. The files under config/ are written by the
// harness, next to a copy of this file.
'use strict';

const { crc32 } = require('crc');
const pomelo = require('pomelo');

// As the stock template does; without it a handler's late exception ends the whole server.
process.on('uncaughtException', (err) => {
  console.error('uncaught exception: ' + err.stack);
});

// For messages and for calls alike.
const byRoom = (session, msg, app, cb) => {
  const room = session.get('rid');
  const servers = app.getServersByType('chat');
  if (!room || servers.length === 0) {
    return cb(new Error('no room, or nobody who has it'));
  }
  cb(null, servers[Math.abs(crc32(room)) % servers.length].id);
};

const app = pomelo.createApp();
app.set('name', 'tangelo-chat');

app.configure('development', 'connector', () => {
  app.set('connectorConfig', {
    connector: pomelo.connectors.hybridconnector,
    heartbeat: 30,
    useDict: true,
    useProtobuf: true,
  });
  app.route('chat', byRoom);
});

app.start((err) => {
  if (err) {
    console.error('server does not start: ' + (err.stack || err));
    process.exit(1);
  }
  // Said last of all: by now this server listens and the master knows it. The harness waits for it.
  console.log('peer ' + app.getServerId() + ' is up');
});
