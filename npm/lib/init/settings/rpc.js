'use strict';
// Calls between servers.

const net = require('net');
const os = require('os');
const { duration } = require('../toml');
const { placeOf } = require('./place');

/** Options that name another protocol between servers. */
const PROTOCOLS = {
  proxyConfig: ['rpcClient', 'mailboxFactory', 'mailBoxFactory'],
  remoteConfig: ['rpcServer', 'acceptorFactory'],
};

function rpc(toml, { type, entries, record }, notes) {
  const { settings } = record;
  const { proxyConfig = {}, serverConfig = {} } = settings;
  const from = (option) => `${placeOf(record, 'set proxyConfig')}: ${option}`;
  for (const [option, key] of [['timeout', 'rpc.timeout'], ['keepalive', 'rpc.keepalive']]) {
    if (Number(proxyConfig[option]) > 0) toml.set(key, duration(Number(proxyConfig[option])), from(option));
  }
  if (Number(proxyConfig.pendingSize) > 0) {
    toml.set('rpc.calls_in_flight_max', Number(proxyConfig.pendingSize), from('pendingSize'));
  }
  for (const [name, options] of Object.entries(PROTOCOLS)) {
    for (const option of options.filter((it) => (settings[name] || {})[it])) {
      notes.ask(
        `${name}.${option}: tangelo speaks the framework's own protocol between servers; take this option away`,
        placeOf(record, `set ${name}`),
      );
    }
  }
  if (serverConfig.enableForwardLog) {
    toml.set('log.forward', true, `${placeOf(record, 'set serverConfig')}: enableForwardLog`);
  }
  for (const { id, host, port } of entries.filter((entry) => entry.port && !isHere(entry.host))) {
    notes.ask(
      `${type} ${id}: the calls of other servers come in on ${host} alone, where the framework listens on all `
        + `addresses; if the machine does not have this address itself, set rpc.listen = "[::]:${port}"`,
    );
  }
}

/** Whether a machine surely has the address. A name may be that of a container or a service. */
function isHere(host) {
  const own = Object.values(os.networkInterfaces()).flat().map(({ address }) => address);
  return host === 'localhost' || (net.isIP(String(host)) > 0 && (own.includes(host) || host.startsWith('127.')));
}

module.exports = { rpc };
