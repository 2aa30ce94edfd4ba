'use strict';
// Notes the place in the project of each call that configures the application.

const { callerPlace } = require('./places');

const LISTS = ['before', 'after', 'globalBefore', 'globalAfter', 'rpcBefore', 'rpcAfter'];

/**
 * The places by name: `set connectorConfig`, `route chat`, `load sync`; those of filters by the filter.
 *
 * @typedef {{named: Map<string, string>, filters: Map<any, string>, plugins: string[], components: string[]}} Places
 */

/** Watches an application and returns its places, which fill up with each call. */
function watch(app, root) {
  const places = { named: new Map(), filters: new Map(), plugins: [], components: [] };
  const around = (method, note) => {
    const plain = app[method];
    app[method] = function (...args) {
      note(callerPlace(root), args);
      return plain.apply(this, args);
    };
  };
  around('set', (place, args) => {
    if (args.length > 1) places.named.set(`set ${args[0]}`, place);
  });
  around('route', (place, [type]) => places.named.set(`route ${type}`, place));
  around('load', (place, [name, component]) => {
    const known = typeof name === 'string' ? name : (name && name.name) || (component && component.name);
    places.components.push(`${place}: ${known || 'without a name'}`);
  });
  around('use', (place, [plugin]) => {
    places.plugins.push(`${place}: ${(plugin && plugin.name) || 'plugin'}`);
  });
  for (const list of LISTS) {
    around(list, (place, [filter]) => places.filters.set(filter, place));
  }
  return places;
}

module.exports = { watch };
