// Functions of `connectorConfig`: what a client's handshake says decides.
'use strict';

const { elsewhere } = require('./log');

const state = { list: [] };

function checkClient(type, version) {
  return version !== '0.0.1';
}

function handshake(message, cb, socket) {
  const { ask, name } = Object(message.user);
  if (ask === 'data') {
    const { ip, port } = socket.remoteAddress;
    setTimeout(() => cb(null, {
      name, 7: [1.50, 1e21, null, 'é'], id: typeof socket.id, ip, port: typeof port, server: elsewhere().getServerId(),
    }), 1);
  } else if (ask === 'zero') {
    cb(null, 0);
  } else if (ask === 'refuse') {
    cb(new Error('no'), { name });
  } else if (ask !== 'nothing') {
    cb();
  }
}

function blacklistFun(cb) {
  cb(state.error ? new Error(state.error) : null, state.list);
}

module.exports = { blacklistFun, checkClient, handshake, state };
