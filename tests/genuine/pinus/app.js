// One server of the test cluster. Which one is told on the command line, as Pinus does it:
//   node app.js env=development type=master
//   node app.js env=development id=chat-1 host=127.0.0.1 port=6050 serverType=chat
// The files under config/ are written by the harness, next to a copy of this file.
'use strict';

// As the stock template does: the loader of handlers and remotes asks it about every export.
require('reflect-metadata');
const { pinus } = require('pinus');

// As the stock template does too.
process.on('uncaughtException', (err) => {
  console.error('uncaught exception: ' + err.stack);
});
process.on('unhandledRejection', (err) => {
  console.error('unhandled rejection: ' + ((err && err.stack) || err));
});

const app = pinus.createApp();
app.set('name', 'tangelo-peer');
// A file that only the tests of the console write.
if (require('fs').existsSync(app.getBase() + '/config/systemMonitor.json')) {
  app.enable('systemMonitor');
  // The commands whose output the pages show; not every machine has them.
  process.env.PATH = `${app.getBase()}/tools:${process.env.PATH}`;
  if (app.isMaster()) {
    // The framework asks all servers every 5 minutes.
    for (const name of ['systemInfo', 'nodeInfo']) {
      app.registerAdmin(`${name}EachSecond`, require('pinus-admin').modules[name], { delay: 1, interval: 1 });
    }
  }
}

app.configure('development', 'connector', () => {
  // More arguments on the command line, as everything in this object is.
  const { useDict, useProtobuf, singleSession } = app.getCurServer();
  app.set('connectorConfig', {
    connector: pinus.connectors.hybridconnector,
    useDict: useDict === 'true',
    useProtobuf: useProtobuf === 'true',
  });
  app.set('sessionConfig', { singleSession: singleSession === 'true' });
});

app.start((err) => {
  if (err) {
    console.error('server does not start: ' + (err.stack || err));
    process.exit(1);
  }
  // A backend that a frontend delegates to: Pinus looks for handlers of its own type only.
  if (app.getServerType() === 'chat') {
    const handlers = require('path').join(app.getBase(), 'app/servers/connector/handler');
    const service = app.components.__server__.server.handlerService;
    service.addServer({ serverType: 'connector', handlerPaths: [handlers] });
  }
  // Said last of all: by now this server listens and the master knows it. The harness waits for it.
  console.log('peer ' + app.getServerId() + ' is up');
});
