// The functions of `connectorConfig` that a frontend itself would call. The blocks of all types of frontends run in this
// process, and each type has its own `connectorConfig`, as has this server's type.
'use strict';

class ConnectorConfigs {
  constructor(types) {
    this.types = types;
    this.running = types; // those that the current block is for
    this.byType = new Map();
    this.loaded = new Map(); // by type
  }

  // Returns a block of `app.configure` that sets what it sets for these types.
  blockFor(types, block) {
    const configs = this;
    return function (...args) {
      const before = configs.running;
      configs.running = configs.types.filter((type) => types.includes(type));
      try {
        return block.apply(this, args);
      } finally {
        configs.running = before;
      }
    };
  }

  set(config) {
    this.running.forEach((type) => this.byType.set(type, config));
  }

  // Takes what a frontend gives to the component. As in the framework, the first one counts, and more than `set`.
  load(config) {
    this.running.forEach((type) => this.loaded.has(type) || this.loaded.set(type, config));
  }

  get(type) {
    return this.loaded.get(type) || this.byType.get(type);
  }
}

// Answers a client's handshake as the framework does, but for the part `sys`. Returns a promise, which never ends if
// the project's function does not call back.
async function answerHandshake(config, message, socket) {
  if (typeof config.checkClient === 'function') {
    const { type, version } = message.sys;
    if (!config.checkClient(type, version)) {
      return { code: 501 };
    }
  }
  if (typeof config.handshake !== 'function') {
    return { code: 200 };
  }
  return new Promise((resolve) => {
    config.handshake(message, (error, user) => resolve(error ? { code: 500 } : { code: 200, user }), socket);
  });
}

// Returns the expressions of the project's blacklist as texts.
async function blacklist(config) {
  if (typeof config.blacklistFun !== 'function') {
    return [];
  }
  const list = await new Promise((resolve, reject) => {
    config.blacklistFun((error, found) => (error ? reject(error) : resolve(found)));
  });
  if (!Array.isArray(list)) {
    throw new Error('connector blacklist is not array');
  }
  return list.map(text);
}

// Returns an expression as a text, with those of its flags that matter for one search in an address.
function text(expression) {
  const { source, flags, sticky } = new RegExp(expression);
  const kept = flags.replace(/[^ims]/g, '');
  return kept || sticky ? `${sticky ? '^' : ''}(?${kept}:${source})` : source;
}

module.exports = { ConnectorConfigs, answerHandshake, blacklist };
