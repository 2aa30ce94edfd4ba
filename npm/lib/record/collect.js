'use strict';
// The configuration of an application → a record.

const path = require('path');
const { describe } = require('./describe');
const { sslOptions } = require('./files');
const { filters } = require('./filters');
const { firstLine } = require('./places');
const { scheduler } = require('./scheduler');
const { tryRoutes } = require('./routes');

/**
 * The configuration of one server of a project.
 *
 * @typedef {object} Record
 * @property {string} connector name of the connector, such as `hybridconnector`
 * @property {Object<string, object>} settings each `…Config` of the application
 * @property {Object<string, string>} places `file:line` by `set NAME` and `route TYPE`
 * @property {Object<string, {strategy?: string, why: string, isKept: boolean, place?: string}>} routes by server type
 * @property {{local: object[], global: object[], rpc: number}} filters
 * @property {object} scheduler push scheduler
 * @property {{handlers: string[], user: string[], error?: string}} [dictionary] with `useDict`
 * @property {string[]} hooks functions of the application that its connector calls
 * @property {string[]} components `file:line: name` of each component that the project loads
 * @property {string[]} plugins the same of plugins
 * @property {string[]} opened sockets of the project itself
 */

/**
 * Returns the record of an application that is about to start.
 *
 * The default components are made, as `app.start` makes them: so the framework itself computes the
 * dictionary. None of them is started but the dictionary, which only reads files.
 *
 * @param {{name: string, lib: string, base: string}} task name and folder of the framework, folder of the project
 * @returns {Promise<Record>}
 */
async function collect(app, framework, task, places) {
  const loaded = [...places.components];
  if (places.connector) {
    // It counts more than what the project sets.
    app.set('connectorConfig', places.connector.config);
    places.named.set('set connectorConfig', places.connector.place);
  }
  const settings = {};
  for (const [name, value] of Object.entries(app.settings)) {
    if (name.endsWith('Config') && value) settings[name] = describe(value);
  }
  const connectorConfig = app.get('connectorConfig') || {};
  if (connectorConfig.ssl) settings.connectorConfig.ssl = sslOptions(connectorConfig.ssl);
  require(path.join(task.lib, 'util/appUtil')).loadDefaultComponents(app);
  return {
    connector: nameIn(framework.connectors, connectorConfig.connector) || 'sioconnector',
    settings,
    places: Object.fromEntries(places.named),
    routes: await tryRoutes(app, task.name === 'pomelo', places),
    filters: filters(app, framework, places),
    scheduler: scheduler(app, framework),
    dictionary: await dictionary(app.components.__dictionary__, task.base),
    hooks: hooks(app),
    components: loaded,
    plugins: places.plugins,
  };
}

function nameIn(group, member) {
  const found = Object.keys(group).find((name) => group[name] === member);
  return found || (member ? member.name || 'a connector of the project' : undefined);
}

async function dictionary(component, base) {
  if (!component) return undefined;
  try {
    await new Promise((resolve, reject) => {
      component.start((error) => (error ? reject(error) : resolve()));
    });
  } catch (error) {
    return { handlers: [], user: [], error: firstLine(error) };
  }
  const file = component.userDicPath;
  const user = file ? require(file) : [];
  const count = Number(user.length) || 0;
  const abbrs = component.getAbbrs();
  const routes = Object.keys(abbrs).sort((a, b) => a - b).map((code) => abbrs[code]);
  // tangelo finds this one itself.
  const isUsual = file && path.parse(file).name === 'dictionary' && path.dirname(file) === path.join(base, 'config');
  return {
    handlers: routes.slice(0, routes.length - count),
    user: isUsual ? [] : Array.from(user),
  };
}

/** Returns the names of the functions outside of `…Config` that a frontend calls. */
function hooks(app) {
  const names = ['errorHandler', 'globalErrorHandler', '__beforeStopHook__', 'adminAuthServerMonitor'];
  return names.filter((name) => app.get(name));
}

module.exports = { collect };
