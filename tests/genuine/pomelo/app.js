// One server of the test cluster. Which one is told on the command line, as Pomelo does it:
//   node app.js env=development type=master
//   node app.js env=development id=chat-1 host=127.0.0.1 port=6050 serverType=chat
// The files under config/ are written by the harness, next to a copy of this file.
'use strict';

const pomelo = require('pomelo');

// As the stock template does; without it a handler's late exception ends the whole server.
process.on('uncaughtException', (err) => {
  console.error('uncaught exception: ' + err.stack);
});

const app = pomelo.createApp();
app.set('name', 'tangelo-peer');
// A file that only the tests of the console write.
if (require('fs').existsSync(app.getBase() + '/config/systemMonitor.json')) {
  app.enable('systemMonitor');
  // The commands whose output the pages show; not every machine has them.
  process.env.PATH = `${app.getBase()}/tools:${process.env.PATH}`;
  if (app.isMaster()) {
    // The framework asks all servers every 5 minutes.
    for (const name of ['systemInfo', 'nodeInfo']) {
      app.registerAdmin(`${name}EachSecond`, require('pomelo-admin').modules[name], { delay: 1, interval: 1 });
    }
  }
}

app.configure('development', 'connector', () => {
  // More arguments on the command line, as everything in this object is.
  const { useDict, useProtobuf, singleSession } = app.getCurServer();
  app.set('connectorConfig', {
    connector: pomelo.connectors.hybridconnector,
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
  // Said last of all: by now this server listens and the master knows it. The harness waits for it.
  console.log('peer ' + app.getServerId() + ' is up');
});
