'use strict';
// The changes in servers.json: frontends start the launcher, and each type with JavaScript of its own gets a
// delegate.

const { frontendTypes, isFrontend, part } = require('./cluster');

/** The options that make Node run tangelo, or a delegate. Masters take away the blank at the start. */
const LAUNCHER = ' --require=tangelo/launcher';
const DELEGATE = ' --require=tangelo/delegate';

/** Returns the server type that is the delegate of a frontend's type: the one in the file, else a new name. */
function delegateOf(types, type) {
  const known = Object.keys(types).find((name) => delegates(types[name]).some((entry) => isFor(entry, type)));
  return known || `${type}Delegate`;
}

function delegates(list) {
  return Array.isArray(list) ? list.filter((entry) => String(entry.args).includes('tangelo/delegate')) : [];
}

function isFor(entry, type) {
  return String(entry.delegateFor).split('|').includes(type);
}

/**
 * Returns servers.json with the changes for one environment.
 *
 * @param {any} json whole content of the file
 * @param {import('./cluster').Environment} environment
 * @param {string[]} withDelegate frontend types that need a delegate
 * @param {string[]} [only] ids of the frontends that start tangelo; all without it
 * @param {import('./notes').Notes} notes
 */
function changeServers(json, { env, master }, withDelegate, only, notes) {
  const changed = structuredClone(json);
  const types = part(changed, env);
  for (const type of frontendTypes(types)) {
    for (const entry of types[type].filter(isFrontend)) {
      if (!only || only.includes(entry.id)) {
        start(entry, env, notes);
      } else if (entry.args === LAUNCHER) {
        notes.decided(`${env}: ${entry.id} still starts tangelo`, 'an earlier init has changed it; remove its args to take it back');
      }
    }
  }
  for (const type of withDelegate) {
    const name = delegateOf(types, type);
    if (name in types) continue;
    const [first] = types[type].filter(isFrontend);
    const port = freePort(types, master, Number.parseInt(first.port || first.clientPort, 10));
    const id = `${type}-delegate-1`;
    types[name] = [{ id, host: first.host, port, delegateFor: type, args: DELEGATE }];
  }
  for (const type of withDelegate) note(types, env, type, notes);
  return changed;
}

function start(entry, env, notes) {
  const name = entry.id || 'each server of a clusterCount';
  if (entry.args && entry.args !== LAUNCHER) entry.argsBefore = entry.args;
  entry.args = LAUNCHER;
  notes.done(`${env}: ${name} starts tangelo, by its args`);
  if (entry.argsBefore) {
    notes.decided(
      `${env}: ${name}: args were ${JSON.stringify(entry.argsBefore)}, which argsBefore keeps`,
      'they are options of Node; the delegate runs the JavaScript and may need them',
    );
  }
}

function note(types, env, type, notes) {
  const name = delegateOf(types, type);
  const [{ id, host, port }] = types[name];
  notes.done(`${env}: ${id}, of type ${name}, runs the JavaScript of ${type}`);
  notes.decided(`${env}: ${id} has the address ${host}:${port}`, `it is beside the first ${type}, and the port is free in servers.json`);
}

/** Returns the first port behind this one that no server of the environment has. */
function freePort(types, master, port) {
  const taken = new Set([Number(master.port)]);
  for (const entry of Object.values(types).flat()) {
    const count = Number(entry.clusterCount) || 1;
    for (const key of ['port', 'clientPort', 'wsPort']) {
      const first = Number.parseInt(entry[key], 10);
      for (let n = 0; n < count; n += 1) taken.add(first + n);
    }
  }
  let free = port + 1;
  while (taken.has(free)) free += 1;
  return free;
}

/**
 * Returns adminServer.json with a token for each delegate: that of its frontend.
 *
 * @param {object[]} json
 * @param {{type: string, delegate: string}[]} pairs
 */
function changeTokens(json, pairs, notes) {
  const changed = structuredClone(json);
  for (const { type, delegate } of pairs) {
    const own = changed.find((entry) => entry.type === type);
    if (!own) {
      notes.ask(`adminServer.json has no entry for ${type}: the master refuses it, and its delegate`);
      continue;
    }
    if (!changed.some((entry) => entry.type === delegate)) changed.push({ ...own, type: delegate });
    notes.done(`adminServer.json: ${delegate} has the token of ${type}`);
  }
  return changed;
}

module.exports = { changeServers, changeTokens, delegateOf };
