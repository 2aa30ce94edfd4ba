// Plays one game with a genuine client and prints a line for each thing that happens:
//   node play.js browser PORT
//   node play.js node PORT
// Lines with an arrow are what was on the wire: `code` is a route from the dictionary, `proto` a body
// that is not JSON. The other lines are events that the client told the game. The script leaves out values
// that differ from run to run, such as session ids, so that a test can compare two frontends. It does not
// play features that neither client has: none sends a `dictVersion`, and the one for Node does not come back by itself.
'use strict';

const EventEmitter = require('events');
const fs = require('fs');
const WebSocket = require('ws');
const { Package, Message } = require('pomelo-protocol');

const [kind, port] = process.argv.slice(2);

// A game that waits for what does not come must not wait for ever.
setTimeout(() => fail('the game takes too long'), 40000).unref();

const say = (line) => console.log(line);
const silent = { log() {}, info() {}, debug() {}, warn() {}, error() {}, trace() {} };

function fail(text) {
  say(text);
  process.exit(1);
}

// The wire.

const TYPES = ['request', 'notify', 'response', 'push'];

function isJson(bytes) {
  try {
    JSON.parse(Buffer.from(bytes).toString());
    return true;
  } catch (e) {
    return false;
  }
}

function show(arrow, bytes) {
  for (const { type, body } of [].concat(Package.decode(Buffer.from(bytes)))) {
    if (type === Package.TYPE_HANDSHAKE) {
      const { code, sys } = JSON.parse(body);
      const dict = sys.dict ? ' dict' : '';
      const protos = sys.protos ? ' protos' : '';
      const known = sys.protoVersion ? ' knows protos' : '';
      say(`${arrow} handshake${code ? ' ' + code : ''}${dict}${protos}${known}`);
    } else if (type === Package.TYPE_DATA) {
      const message = Message.decode(body);
      const code = message.compressRoute ? ' code' : '';
      const proto = isJson(message.body) ? '' : ' proto';
      say(`${arrow} ${TYPES[message.type]}${code}${proto}`);
    } else {
      const names = { [Package.TYPE_HANDSHAKE_ACK]: 'ack', [Package.TYPE_KICK]: 'kick' };
      say(`${arrow} ${names[type] || 'heartbeat'}`);
    }
  }
}

class Watched extends WebSocket {
  constructor(url) {
    super(url);
    this.on('message', (data) => show('<-', data));
  }

  send(data, ...rest) {
    show('->', data);
    super.send(data, ...rest);
  }
}

// The clients.

// Runs a file as a page does, with these names around it.
function load(file, names) {
  const module = { exports: {} };
  const all = { module, ...names };
  const source = fs.readFileSync(require.resolve(file), 'utf8');
  new Function(...Object.keys(all), source).apply({}, Object.values(all));
  return module.exports;
}

// pomelo-jsclient-websocket, each time as on a page that was just opened.
function browser(storage) {
  const window = {
    EventEmitter,
    localStorage: {
      getItem: (key) => (storage.has(key) ? storage.get(key) : null),
      setItem: (key, value) => storage.set(key, value),
    },
  };
  window.Protocol = load('pomelo-protocol/lib/protocol.js', { window });
  window.protobuf = load('pomelo-protobuf/lib/client/protobuf.js', { window });
  // This client calls the decoder of the browser by the name that the server's has.
  window.protobuf.decodeStr = window.protobuf.decode;
  const names = { window, WebSocket: Watched, console: silent };
  const client = load('pomelo-jsclient-websocket', names);
  return {
    on: (event, told) => client.on(event, told),
    open: (onIn) => client.init({ host: '127.0.0.1', port, user: {}, reconnect: true }, onIn),
    request: (route, msg) => new Promise((answer) => client.request(route, msg, answer)),
    notify: (route, msg) => client.notify(route, msg),
  };
}

// pomelo-nodejsclient-websocket, which brings its own WebSocket and knows no reconnect.
function node() {
  const client = new (require('pomelo-nodejsclient-websocket'))({ logger: silent });
  const { send } = client;
  client.send = function (packet) {
    show('->', packet);
    send.call(this, packet);
  };
  return {
    on: (event, told) => client.on(event, told),
    open: (onIn) => {
      client.init({ host: '127.0.0.1', port, user: {} }, onIn);
      client.socket.prependListener('message', (data) => show('<-', data));
    },
    request: (route, msg) =>
      new Promise((answer) => client.request(route, msg, (err, body) => answer(body))),
    notify: (route, msg) => client.notify(route, msg),
  };
}

// The game.

const EVENTS = ['onNews', 'onPlain', 'onAll', 'onKick', 'reconnect', 'error', 'close'];

// A client that waits for its next event.
function player(client) {
  const happened = new EventEmitter();
  for (const event of EVENTS) {
    client.on(event, (body) => {
      say(`${event}${event.startsWith('on') && body ? ' ' + JSON.stringify(body) : ''}`);
      happened.emit(event);
    });
  }
  const next = (event) => new Promise((resolve) => happened.once(event, resolve));
  const ask = async (method, msg) => {
    const answer = await client.request('chat.chatHandler.' + method, msg);
    // The transcript leaves out the backend and the session.
    say(`${method} ${JSON.stringify(method === 'whoami' ? answer.uid : answer)}`);
    return answer;
  };
  const open = () => {
    const isIn = next('in');
    client.open(() => {
      say('in');
      happened.emit('in');
    });
    return isIn;
  };
  return { ...client, next, ask, open };
}

const NEWS = { n: 300, text: 'é 世界', item: { id: 7, price: 1.5 }, list: [1, -2, 3] };

async function greet(player, uid) {
  await player.ask('bind', { uid });
  const { frontendId } = await player.ask('whoami', {});
  for (const [route, msg] of [['onNews', NEWS], ['onPlain', { a: [1, 'b', null] }]]) {
    const pushed = player.next(route);
    await player.ask('pushUids', { route, msg, uids: [{ uid, sid: frontendId }] });
    await pushed;
  }
}

async function play() {
  const storage = new Map();
  const make = () => player(kind === 'node' ? node() : browser(storage));
  const uid = 'player-' + kind;

  const first = make();
  await first.open();
  await greet(first, uid);
  await first.ask('echo', { n: 4000000000, text: 'up and down', list: [5, -6] });
  // The backend lives on and may know a session of the same id, so the list is of this game.
  const list = 'game-' + process.pid;
  for (const n of [1, 2]) {
    first.notify('chat.chatHandler.note', { n, list });
  }
  await first.ask('notes', { list });
  await first.ask('errOnly', {});
  const all = first.next('onAll');
  await first.ask('bcast', { route: 'onAll', msg: { to: 'all' } });
  await all;

  const closed = first.next('close');
  const back = Promise.all([first.next('reconnect'), first.next('in')]);
  first.request('chat.chatHandler.kickUid', { uid, reason: 'bye' });
  await closed;
  if (kind === 'browser') {
    // It comes back by itself, and knows the protos.
    await back;
    await greet(first, uid);
  }
  // Somebody opens the page again, in another window.
  const second = make();
  await second.open();
  await greet(second, uid + '-again');
  say('end');
  process.exit(0);
}

play().catch((e) => fail(e.stack));
