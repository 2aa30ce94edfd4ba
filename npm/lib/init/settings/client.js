'use strict';
// `connectorConfig` and `sessionConfig`.

const { placeOf } = require('./place');

/** Options that are a switch of the same meaning. */
const SWITCHES = {
  useDict: 'client.use_dict',
  useProtobuf: 'client.use_protobuf',
  useCrypto: 'client.use_crypto',
  useHostFilter: 'client.blacklist_console',
};

/** Options whose text is that of a key. */
const TEXTS = { realIPKey: 'client.real_ip_header', realPortKey: 'client.real_port_header' };

/** Options that a person has to look at, with what to do. */
const ASKED = {
  encode: 'own coders are JavaScript; tangelo sends JSON or protobuf',
  decode: 'own coders are JavaScript; tangelo reads JSON or protobuf',
  useAsyncCoder: 'own coders are JavaScript',
};

/** Functions that the delegate is asked for, by the key that names its remote. */
const DELEGATED = {
  delegate_handshake: { remote: 'tangelo.handshake', options: ['checkClient', 'handshake'] },
  delegate_blacklist: { remote: 'tangelo.blacklist', options: ['blacklistFun'] },
};

/** Options without effect on tangelo, with the reason. */
const NEEDLESS = {
  setNoDelay: 'tangelo always sets it',
  disconnectOnTimeout: 'tangelo always closes clients that send no heartbeat',
  sslWatcher: 'tangelo takes a changed certificate by itself, from the files of ssl; write a new one into them',
  closeMethod: 'tangelo half-closes each socket, and cuts it off after 2 s',
};

/** Returns the options whose functions the delegate is asked for. */
function askedFunctions({ settings }) {
  const config = settings.connectorConfig || {};
  const isAsked = (option) => config[option] && 'function' in Object(config[option])
    && (option !== 'blacklistFun' || config.useHostFilter);
  return Object.values(DELEGATED).flatMap(({ options }) => options).filter(isAsked);
}

function client(toml, { type, env, entries, record }, notes) {
  const { connectorConfig: config = {}, sessionConfig = {} } = record.settings;
  const place = placeOf(record, 'set connectorConfig');
  const from = (option) => `${place}: ${option}`;

  if (record.connector !== 'hybridconnector') {
    notes.ask(`${env}: ${type} uses ${record.connector}; tangelo speaks the protocol of hybridconnector only`, place);
  }
  if (config.heartbeat) seconds(toml, 'client.heartbeat', config.heartbeat, from('heartbeat'), notes);
  if (config.timeout) seconds(toml, 'client.timeout', config.timeout, from('timeout'), notes);
  for (const [option, key] of Object.entries(SWITCHES)) {
    if (config[option]) toml.set(key, true, from(option));
  }
  for (const [option, key] of Object.entries(TEXTS)) {
    if (config[option]) toml.set(key, config[option], from(option));
  }
  if (config.realIPKey) {
    notes.ask('connectorConfig.realIPKey: the header counts only for the proxies in client.trusted_proxies: add their addresses', place);
  }
  if (config.forwardMsg === false) toml.set('client.forward', false, from('forwardMsg'));
  if (config.ssl) ssl(toml, config.ssl, place, notes);
  if (config.distinctHost) distinctHost(toml, entries, from('distinctHost'), notes);
  const asked = askedFunctions(record);
  for (const [key, { remote, options }] of Object.entries(DELEGATED)) {
    const found = options.filter((option) => asked.includes(option));
    if (found.length > 0) toml.set(key, remote, from(found.join(', ')));
  }
  for (const option of asked) notes.done(`${from(option)} runs in the delegate`);
  if (config.blacklistFun) {
    const [what, why] = asked.includes('blacklistFun')
      ? ['once a second', 'and not for each connection, as in the framework']
      : ['never', 'the framework asks it only with useHostFilter'];
    notes.decided(`${from('blacklistFun')} is asked ${what}`, why);
  }
  for (const [option, cure] of Object.entries(ASKED)) {
    if (config[option]) notes.ask(`connectorConfig.${option}: ${cure}`, place);
  }
  for (const [option, reason] of Object.entries(NEEDLESS)) {
    if (config[option] !== undefined) notes.decided(`connectorConfig.${option} has no key`, reason);
  }
  if (sessionConfig.singleSession) {
    toml.set('session.duplicate_login', 'refuse', `${placeOf(record, 'set sessionConfig')}: singleSession`);
  }
}

function seconds(toml, key, value, comment, notes) {
  const number = Number(value);
  if (Number.isInteger(number) && number > 0) {
    toml.set(key, `${number}s`, comment);
  } else {
    notes.ask(`${comment} is ${JSON.stringify(value)}: ${key} takes whole seconds`);
  }
}

/** TLS on the port of the project, with the files that the main script reads. */
function ssl(toml, options, place, notes) {
  const { cert, key, ca, crl, requestCert, rejectUnauthorized, minVersion, without } = options;
  if (!cert || !key) {
    notes.ask('connectorConfig.ssl: the script reads no files for cert and key; add [[listener]] with tls = "required", and the files to [[tls.certificates]]', place);
    return;
  }
  toml.table('listener', { tls: 'required' });
  toml.table('tls.certificates', { chain: cert, key });
  if (minVersion === 'TLSv1.3') toml.set('tls.min_version', '1.3', `${place}: ssl`);
  if (requestCert && ca) {
    toml.set('tls.client_ca', ca, `${place}: ssl`);
    toml.set('tls.client_certificates', rejectUnauthorized === false ? 'optional' : 'required');
    if (crl) toml.set('tls.client_crl', crl);
  } else if (requestCert) {
    notes.ask('connectorConfig.ssl: name the file with the certificates that sign those of clients in tls.client_ca', place);
  }
  for (const option of without) {
    notes.ask(`connectorConfig.ssl.${option}: init wrote no key for it; the keys of TLS are in docs/configuration.md under [tls]`, place);
  }
}

/** The address is that of one server, but the file is that of all servers of the type. */
function distinctHost(toml, entries, comment, notes) {
  const [entry] = entries;
  if (entries.length === 1 && !entry.clusterCount) {
    toml.set('listen', `${entry.host}:${entry.clientPort}`, comment);
  } else {
    notes.ask(`${comment}: tangelo listens on all addresses; set listen for each server`);
  }
}

module.exports = { askedFunctions, client };
