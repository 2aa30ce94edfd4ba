// The places where Pomelo and Pinus keep what a delegate needs.
'use strict';

const fs = require('fs');
const path = require('path');
const { createRequire } = require('module');

// Finds the framework that a folder belongs to.
function find(folder) {
  let root = folder;
  while (!fs.existsSync(path.join(root, 'package.json'))) {
    root = path.dirname(root);
  }
  const require = createRequire(path.join(root, 'package.json'));
  return require('./package.json').name === 'pinus' ? pinus(require) : pomelo(require);
}

function pomelo(require) {
  const loader = require('pomelo-loader');
  const server = require('./lib/server/server');
  return {
    application: require('./lib/application'),
    server,
    createServer: server.create,
    ChannelService: require('./lib/common/service/channelService'),
    connector: require('./lib/components/connector'),
    Dispatcher: require('pomelo-rpc/lib/rpc-server/dispatcher'),
    paths: require('./lib/util/pathUtil'),
    loadRemotes: (folder, app) => loader.load(folder, app),
    // Without a folder of remotes a server does not even know their namespace.
    hasNamespace: false,
  };
}

function pinus(require) {
  const { load, LoaderPathType } = require('pinus-loader');
  const server = require('./dist/lib/server/server');
  return {
    application: require('./dist/lib/application').Application.prototype,
    server,
    createServer: server.create,
    ChannelService: require('./dist/lib/common/service/channelService').ChannelService,
    connector: require('./dist/lib/components/connector').ConnectorComponent,
    Dispatcher: require('pinus-rpc/dist/lib/rpc-server/dispatcher').Dispatcher,
    paths: require('./dist/lib/util/pathUtil'),
    loadRemotes: (folder, app) => load(folder, app, false, true, LoaderPathType.PINUS_REMOTER),
    hasNamespace: true,
  };
}

module.exports = { find };
