// One server of a measured cluster. Which one is told on the command line, as Pinus does it:
//   node app.js env=development type=master
//   node app.js env=development id=chat-1 host=127.0.0.1 port=6050 serverType=chat
// The files under config/ are written by the program that measures.
'use strict';

// As the stock template does: the loader of handlers and remotes asks it about every export.
require('reflect-metadata');
const { pinus } = require('pinus');

// As the stock template does.
process.on('uncaughtException', (err) => {
  console.error('uncaught exception: ' + err.stack);
});

const app = pinus.createApp();
app.set('name', 'tangelo-perf-peer');

app.configure('development', 'connector', () => {
  // More words on the command line, all of which may be missing.
  const { heartbeat, noDelay, scheduler } = app.getCurServer();
  app.set('connectorConfig', {
    connector: pinus.connectors.hybridconnector,
    heartbeat: heartbeat && Number(heartbeat),
    setNoDelay: noDelay === 'true',
  });
  if (scheduler === 'buffer') {
    app.set('pushSchedulerConfig', { scheduler: pinus.pushSchedulers.buffer });
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
