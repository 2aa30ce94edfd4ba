'use strict';
// Route functions and `routerType`.

const { placeOf } = require('./place');

const TYPES = { rr: 'rr', wrr: 'wrr', la: 'la', ch: 'ch' };

function routes(toml, { type: own, delegate, record }, notes) {
  const { routerType } = record.settings.proxyConfig || {};
  if (TYPES[routerType]) {
    toml.set('route.default', routerType, `${placeOf(record, 'set proxyConfig')}: routerType`);
  }
  // Filters of the project run only for messages that pass the delegate.
  const hasFilters = record.filters.global.some(({ kind }) => !kind);
  for (const [type, { strategy, why, isKept, place }] of Object.entries(record.routes)) {
    if (type === own) {
      notes.done(`${place}: app.route('${type}') chooses for calls only, and the servers that make them ask it`);
      continue;
    }
    const chosen = strategy || (isKept && !hasFilters ? 'delegate:session' : 'delegate');
    if (chosen !== 'default') toml.set(`route.${type}`, chosen, `${place}: app.route`);
    notes.decided(`${place}: app.route('${type}') is the strategy ${chosen}`, reason(chosen, why, delegate));
  }
}

/** Returns the reason for a strategy. */
function reason(chosen, why, delegate) {
  if (chosen === 'delegate') return `${why}; ${delegate} asks the function for each message`;
  if (chosen !== 'delegate:session') return why;
  return `${why}; its text uses only the session and the list of servers, so ${delegate} asks the function once for each `
    + 'session, and again after a change of one of them';
}

module.exports = { routes };
