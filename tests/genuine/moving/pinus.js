// Configures what Pinus has in another form than Pomelo.
'use strict';

const fs = require('fs');
require('reflect-metadata');
const { pinus } = require('pinus');

const app = pinus.createApp();
const pem = (name) => fs.readFileSync(`config/${name}.pem`);

app.configure('development', 'connector', () => {
  app.set('connectorConfig', {
    connector: pinus.connectors.hybridconnector,
    heartbeat: 3,
    forwardMsg: false,
    realIPKey: 'X-Real-IP',
    ssl: {
      type: 'wss', cert: pem('cert'), key: pem('key'), ca: [pem('ca')], crl: pem('crl'), requestCert: true, minVersion: 'TLSv1.3',
      ciphers: 'HIGH',
    },
  });
  app.set('pushSchedulerConfig', { scheduler: pinus.pushSchedulers.buffer, flushInterval: 50 });
  app.globalFilter(new pinus.filters.serial(5000));
  app.route('lanes', async (session, msg, view, cb) => {
    const lanes = view.getServersByType('lanes');
    cb(null, lanes[session.get('lane') % lanes.length].id);
  });
  app.route('chat', async (session, msg, view, cb) => cb(null, session.get('chat')));
});

// As projects do that wait for a database.
setTimeout(() => app.start(), 50);
