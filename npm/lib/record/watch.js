'use strict';
// Notes the place in the project of each call that configures the application.

const { callerPlace } = require('./places');

const LISTS = ['before', 'after', 'globalBefore', 'globalAfter', 'rpcBefore', 'rpcAfter'];

/**
 * The places by name: `set connectorConfig`, `route chat`, `load sync`; those of filters by the filter.
 *
 * @typedef {{named: Map<string, string>, filters: Map<any, string>, plugins: string[], components: string[],
 *   connector?: {config: object, place: string}}} Places
 */

/** Watches an application and returns its places, which fill up with each call. */
function watch(app, root, connector) {
  const places = { named: new Map(), filters: new Map(), plugins: [], components: [] };
  let depth = 0;
  const around = (method, note) => {
    const plain = app[method];
    app[method] = function (...args) {
      note(callerPlace(root), args, depth > 0);
      depth += 1;
      try {
        return plain.apply(this, args);
      } finally {
        depth -= 1;
      }
    };
  };
  around('set', (place, args) => {
    if (args.length > 1) places.named.set(`set ${args[0]}`, place);
  });
  around('route', (place, [type]) => places.named.set(`route ${type}`, place));
  around('load', (place, args, isInner) => {
    // A part of a plugin, or of another component.
    if (isInner) return;
    const [component, config] = typeof args[0] === 'string' ? args.slice(1) : args;
    if (component === connector) {
      // As in the framework, the first one counts.
      places.connector = places.connector || { config: config || {}, place };
      return;
    }
    const name = typeof args[0] === 'string' ? args[0] : component && component.name;
    places.components.push(`${place}: ${name || 'without a name'}`);
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
