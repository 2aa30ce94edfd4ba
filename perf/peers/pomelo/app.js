// One server of a measured cluster. Which one is told on the command line, as Pomelo does it:
//   node app.js env=development type=master
//   node app.js env=development id=chat-1 host=127.0.0.1 port=6050 serverType=chat
// The files under config/ are written by the program that measures.
'use strict';

const pomelo = require('pomelo');

// The one change to Pomelo. Its raw TCP socket hands on the options of a WebSocket as the encoding,
// which the socket of Node 14 and newer refuses.
const tcpSocket = require('pomelo/lib/connectors/hybrid/tcpsocket');
tcpSocket.prototype.send = function (msg, _options, cb) { this._socket.write(msg, cb); };

// As the stock template does; without it a late exception ends the whole server.
process.on('uncaughtException', (err) => {
  console.error('uncaught exception: ' + err.stack);
});

const app = pomelo.createApp();
app.set('name', 'tangelo-perf-peer');

app.configure('development', 'connector', () => {
  // More words on the command line, all of which may be missing.
  const { heartbeat, noDelay, scheduler } = app.getCurServer();
  app.set('connectorConfig', {
    connector: pomelo.connectors.hybridconnector,
    heartbeat: heartbeat && Number(heartbeat),
    setNoDelay: noDelay === 'true',
  });
  if (scheduler === 'buffer') {
    app.set('pushSchedulerConfig', { scheduler: pomelo.pushSchedulers.buffer });
  }
});

app.start((err) => {
  if (err) {
    console.error('server does not start: ' + (err.stack || err));
    process.exit(1);
  }
  // Said last of all: by now this server listens and the master knows it.
  console.log('peer ' + app.getServerId() + ' is up');
});
