// A project whose configuration is scripts: it asks for names without an ending.
'use strict';

require('reflect-metadata');
const { FILEPATH, pinus } = require('pinus');

FILEPATH.SERVER = '/config/servers';
FILEPATH.MASTER = '/config/master';

const app = pinus.createApp();
app.configure('production|development', 'connector', () => {
  app.set('connectorConfig', { connector: pinus.connectors.hybridconnector, heartbeat: 3 });
});
app.start();
