'use strict';
// node frontend.js <file>: each line {"options", "handlers": {type: {handler: [method]}}, "user": [route] or null,
// "protos": {"server", "client"}, "requests": [hex]} of the file is a frontend of its own: the genuine connector with the
// genuine dictionary and protobuf components. One line {"replies": [[hex of a package]]} for each.

const fs = require('fs');
const os = require('os');
const path = require('path');
const say = process.stdout.write.bind(process.stdout);
for (const name of ['log', 'info', 'warn', 'error']) console[name] = () => {};
require('pomelo-logger').configure({ levels: { '[all]': 'OFF' }, appenders: [] });

const pomelo = require('pomelo');
const connector = require('pomelo/lib/components/connector');
const dictionary = require('pomelo/lib/components/dictionary');
const protobuf = require('pomelo/lib/components/protobuf');
const WebSocket = require('ws');

// As a stock application does: what one request throws must not end the others.
process.on('uncaughtException', () => {});

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tangelo-handshake-'));
process.on('exit', () => fs.rmSync(folder, { recursive: true, force: true }));

function write(file, content) {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, content);
}

function project(base, line) {
  for (const [type, handlers] of Object.entries(line.handlers)) {
    for (const [name, methods] of Object.entries(handlers)) {
      const list = JSON.stringify(methods);
      write(path.join(base, 'app/servers', type, 'handler', name + '.js'),
        `module.exports = () => Object.fromEntries(${list}.map((name) => [name, () => {}]));`);
    }
  }
  const config = (name, json) => json && write(path.join(base, 'config', name), JSON.stringify(json));
  config('dictionary.json', line.user);
  config('serverProtos.json', line.protos.server);
  config('clientProtos.json', line.protos.client);
}

// The one application of this process stands in one project after the other.
function application() {
  const config = path.join(folder, 'config');
  write(path.join(config, 'master.json'), JSON.stringify({ development: { id: 'master', host: '127.0.0.1', port: 1 } }));
  write(path.join(config, 'servers.json'), JSON.stringify({ development: {} }));
  const app = pomelo.createApp({ base: folder });
  app.getCurServer = () => ({ clientPort: 0, host: '127.0.0.1' });
  app.load = () => {};
  return app;
}

function start(app, base, line) {
  const options = Object.assign({}, line.options, { connector: pomelo.connectors.hybridconnector, distinctHost: true });
  app.getBase = () => base;
  app.set('servers', Object.fromEntries(Object.keys(line.handlers).map((type) => [type, []])));
  app.components.__connector__ = connector(app, options);
  app.components.__dictionary__ = dictionary(app, {});
  app.components.__dictionary__.start(() => {});
  app.components.__protobuf__ = protobuf(app, {});
  const genuine = app.components.__connector__.connector;
  return new Promise((resolve) => {
    genuine.start(() => genuine.listeningServer.once('listening', () => resolve(genuine)));
  });
}

// The packages that come for a request.
function shake(port, request) {
  return new Promise((resolve) => {
    const socket = new WebSocket('ws://127.0.0.1:' + port);
    const packages = [];
    socket.on('error', () => {});
    socket.on('open', () => socket.send(request));
    socket.on('message', (bytes) => {
      packages.push(bytes.toString('hex'));
      setImmediate(() => socket.close());
    });
    const timer = setTimeout(() => socket.terminate(), 2000);
    socket.on('close', () => { clearTimeout(timer); resolve(packages); });
  });
}

(async () => {
  const app = application();
  const lines = fs.readFileSync(process.argv[2], 'utf8').split('\n').filter(Boolean);
  for (const [index, text] of lines.entries()) {
    const line = JSON.parse(text);
    const base = path.join(folder, String(index));
    project(base, line);
    const genuine = await start(app, base, line);
    const port = genuine.listeningServer.address().port;
    const requests = line.requests.map((hex) => Buffer.from(hex, 'hex'));
    const replies = await Promise.all(requests.map((request) => shake(port, request)));
    genuine.stop(true, () => {});
    app.components.__protobuf__.stop(true, () => {});
    say(JSON.stringify({ replies }) + '\n');
  }
  // Not before all is written: a pipe takes 64 KiB at a time.
  process.stdout.write('', () => process.exit(0));
})();
