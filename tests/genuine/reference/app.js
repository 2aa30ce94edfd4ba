// One server of the reference application, whose Rust twin is tests/reference/app.rs. Which one is
// told on the command line, as Pomelo does it:
//   node app.js env=development type=master
//   node app.js env=development id=c-hb host=127.0.0.1 port=6050 clientPort=6051 ...
// The files under config/ are written by the harness, next to a copy of this file.
'use strict';

const fs = require('fs');
const pomelo = require('pomelo');
const { filters } = require('./filters');

// As the stock template does; without it a handler's late exception ends the whole server.
process.on('uncaughtException', (err) => {
  console.error('uncaught exception: ' + err.stack);
});

// Expressions, one a line, that a test changes while the server runs.
const blacklist = (cb) => {
  const text = fs.readFileSync(pomelo.app.getBase() + '/blacklist', 'utf8');
  cb(null, text.split('\n').filter(Boolean));
};

const userHandshake = (msg, cb) => {
  const user = msg.user || {};
  if (user.fail) {
    cb(new Error('the user said so'));
  } else {
    cb(null, user.want ? { hello: user.want } : null);
  }
};

// Options of the connector, by server.
const connectors = {
  'c-hb': { heartbeat: 1, timeout: 0 },
  'c-dist': { distinctHost: true, heartbeat: 2, timeout: 3 },
  'c-dict': {
    heartbeat: 30,
    useDict: true,
    useProtobuf: true,
    handshake: userHandshake,
    checkClient: (type) => type !== 'bad',
  },
  'c-crypto': { useCrypto: true },
  'c-host': { useHostFilter: true, blacklistFun: blacklist },
  'c-tmo': { timeout: 2, closeMethod: 'end' },
};

const app = pomelo.createApp();
app.set('name', 'tangelo-reference');

app.configure('development', 'connector', () => {
  const id = app.getServerId();
  const connector = pomelo.connectors.hybridconnector;
  app.set('connectorConfig', Object.assign({ connector }, connectors[id]));
  if (id === 'c-buffer') {
    app.set('pushSchedulerConfig', {
      scheduler: pomelo.pushSchedulers.buffer,
      flushInterval: 100,
    });
  }
  if (id === 'c-single') {
    app.set('sessionConfig', { singleSession: true });
  }
  filters(app, id);
});

app.start((err) => {
  if (err) {
    console.error('server does not start: ' + (err.stack || err));
    process.exit(1);
  }
  // Said last of all: by now this server listens and the master knows it. The harness waits for it.
  console.log('peer ' + app.getServerId() + ' is up');
});
