'use strict';
// Route functions and `routerType`.

const { placeOf } = require('./place');

const TYPES = { rr: 'rr', wrr: 'wrr', la: 'la', ch: 'ch' };

function routes(toml, { type: own, delegate, record }, notes) {
  const { routerType } = record.settings.proxyConfig || {};
  if (TYPES[routerType]) {
    toml.set('route.default', routerType, `${placeOf(record, 'set proxyConfig')}: routerType`);
  }
  for (const [type, { strategy, why, place }] of Object.entries(record.routes)) {
    if (type === own) {
      notes.done(`${place}: app.route('${type}') chooses for calls only, and the servers that make them ask it`);
      continue;
    }
    const chosen = strategy || 'delegate';
    if (chosen !== 'default') toml.set(`route.${type}`, chosen, `${place}: app.route`);
    notes.decided(
      `${place}: app.route('${type}') is the strategy ${chosen}`,
      strategy ? why : `${why}; ${delegate} asks the function for each message`,
    );
  }
}

module.exports = { routes };
