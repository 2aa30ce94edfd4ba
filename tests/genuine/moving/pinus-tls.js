// A project of Pinus that takes a changed certificate at run time.
'use strict';

const fs = require('fs');
require('reflect-metadata');
const { pinus } = require('pinus');

const app = pinus.createApp();
const context = () => ({ cert: fs.readFileSync('config/a.pem'), key: fs.readFileSync('config/a.key') });

app.configure('development', 'connector', () => {
  app.set('connectorConfig', {
    connector: pinus.connectors.hybridconnector,
    ssl: { type: 'wss', ...context() },
    sslWatcher: (cb) => fs.watchFile('config/a.pem', { interval: 100 }, () => cb(context())),
  });
});

app.start();
