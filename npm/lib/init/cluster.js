'use strict';
// The servers of a project, as servers.json lists them for each environment.

const fs = require('fs');
const path = require('path');
const { Failure } = require('./failure');
const { readConfig } = require('./configFile');

/**
 * The servers of one environment.
 *
 * @typedef {object} Environment
 * @property {string} env
 * @property {import('./configFile').ConfigFile} source the file that has them
 * @property {Object<string, object[]>} types entries by server type
 * @property {{id?: string, host?: string, port?: number}} master
 */

/** Returns the environments of a project. Throws a Failure without servers. */
function environments(project) {
  const found = names(project).map((env) => environment(project, env));
  if (found.length > 0) return found;
  const file = path.join(project.base, 'config/servers.json');
  throw new Failure(`${file}: ${readConfig(project, 'servers') ? 'has no servers' : 'is not there'}`);
}

/** Returns the names of the environments. */
function names(project) {
  const servers = readConfig(project, 'servers');
  if (!servers) return folders(project.base).filter((env) => readConfig(project, 'servers', env));
  if (!hasTypes(servers.json)) {
    return Object.keys(servers.json).filter((env) => hasTypes(Object(servers.json[env])));
  }
  // One list for all of them: another file may have their names.
  const master = readConfig(project, 'master');
  const named = Object.entries((master && master.json) || {}).filter(([, it]) => Object(it).port);
  return named.length > 0 ? named.map(([env]) => env) : ['development'];
}

function environment(project, env) {
  const source = readConfig(project, 'servers', env);
  const master = readConfig(project, 'master', env);
  return {
    env,
    source,
    types: part(source.json, env),
    master: (master && part(master.json, env)) || {},
  };
}

/** Returns the part of a file for an environment, as the framework does. */
function part(json, env) {
  return json[env] || json;
}

function hasTypes(json) {
  return Object.values(json).some(Array.isArray);
}

function folders(base) {
  const config = path.join(base, 'config');
  if (!fs.existsSync(config)) return [];
  return fs.readdirSync(config, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name);
}

/** Returns the types of frontends. */
function frontendTypes(types) {
  return Object.keys(types).filter((type) => lists(types[type]).some(isFrontend));
}

function isFrontend(entry) {
  return entry.frontend === true || entry.frontend === 'true';
}

function lists(value) {
  return Array.isArray(value) ? value : [];
}

/** Returns the words with which a master starts the first server of an entry. */
function words(env, type, entry) {
  const id = entry.clusterCount ? `cluster-server-${type}-0` : entry.id;
  const members = { ...entry, id, serverType: type };
  const text = (value) => String(value).replace(/\+\+$/, '');
  return [`env=${env}`, ...Object.entries(members).map(([key, value]) => `${key}=${text(value)}`)];
}

module.exports = { environments, frontendTypes, isFrontend, part, words };
