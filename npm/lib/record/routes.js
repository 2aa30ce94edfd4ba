'use strict';
// Route functions of a project → strategies of the gateway, by trying them.
//
// A function is called with many sessions and lists of servers. If each answer is the one that a strategy of
// the gateway gives, the function is replaced by it. A function that reads the message, or that answers
// the same question in two ways, is not.

const { crc32 } = require('./crc32');
const { usesSessionOnly } = require('./sessionOnly');

/** Values of settings and uids that the sessions have. */
const VALUES = ['1', '2', 'lobby', 'room-17', 'ann', 'bob', 'x'.repeat(40), '9000000001'];
const COUNTS = [1, 2, 3, 7];
const ANSWER_TIMEOUT_MS = 1000;

/**
 * Returns for each server type with a route function the strategy, or the reason why there is none, and whether its answer
 * for a session stays the same.
 *
 * @param {boolean} isSigned whether the framework takes a checksum as a signed number
 */
async function tryRoutes(app, isSigned, places) {
  const out = {};
  for (const [type, route] of Object.entries(app.get('__routes__') || {})) {
    const result = await tryRoute(route, type, app, isSigned);
    const isKept = !result.strategy && usesSessionOnly(route);
    out[type] = { ...result, isKept, place: places.named.get(`route ${type}`) };
  }
  return out;
}

async function tryRoute(route, type, app, isSigned) {
  const reads = new Set();
  let open = null;
  for (let round = 0; round < 2; round += 1) {
    for (const count of COUNTS) {
      const ids = Array.from({ length: count }, (_, n) => `${type}-of-tangelo-${n + 1}`);
      for (const value of [...VALUES, ids[count - 1]]) {
        const answer = await ask(route, question(app, type, ids, value, reads));
        if (answer.why) return { why: answer.why };
        const [key] = reads;
        const isKnown = reads.size < 2 && /^(uid$|setting )/.test(key || 'uid');
        if (!isKnown) return { why: `it reads ${[...reads].join(' and ')}` };
        const fitting = strategies(key, value, ids, answer.id, isSigned);
        open = open ? open.filter((name) => fitting.includes(name)) : fitting;
        if (open.length === 0) return { why: 'its answers are those of no strategy' };
      }
    }
  }
  const [key] = reads;
  if (key && await answersWithout(route, type, app, open[0])) {
    return { why: `it finds a server for a session without ${key}` };
  }
  const calls = 2 * COUNTS.length * (VALUES.length + 1);
  return { strategy: open[0], why: `${calls} calls of the function gave the same servers` };
}

/** Whether the function finds a server that the strategy does not find, for a session with no such value. */
async function answersWithout(route, type, app, strategy) {
  const ids = [`${type}-of-tangelo-1`, `${type}-of-tangelo-2`];
  const { id } = await ask(route, question(app, type, ids, undefined, new Set()));
  return id !== undefined && !(strategy === 'default' && id === ids[0]);
}

/** Returns the strategies that choose this server. */
function strategies(key, value, ids, answer, isSigned) {
  const hash = isSigned ? Math.abs(crc32(value) | 0) : crc32(value);
  const byHash = answer === ids[hash % ids.length];
  const fitting = [];
  // The ids of the list are not those of the project.
  if (key === undefined && !ids.includes(answer)) fitting.push(`fixed:${answer}`);
  if (key === 'uid' && byHash) fitting.push('default');
  if (key !== undefined && key !== 'uid') {
    const name = key.slice('setting '.length);
    if (byHash) fitting.push(`hash:${name}`);
    if (answer === value) fitting.push(`setting:${name}`);
  }
  return fitting;
}

/** Returns the arguments of one call. `reads` gets the names of all that the function looks at. */
function question(app, type, ids, value, reads) {
  const servers = ids.map((id) => ({ id, serverType: type, host: '127.0.0.1', port: 1 }));
  const byId = Object.fromEntries(servers.map((server) => [server.id, server]));
  const seen = (name) => {
    reads.add(name);
    return value;
  };
  const session = {
    get: (key) => seen(`setting ${key}`),
    get uid() {
      return seen('uid');
    },
    settings: new Proxy({}, { get: (_, key) => seen(`setting ${String(key)}`) }),
  };
  const guarded = new Proxy(session, {
    get: (target, key) => (key in target ? target[key] : seen(`session.${String(key)}`)),
  });
  const message = new Proxy({}, { get: (_, key) => seen(`the message (${String(key)})`) });
  const view = Object.create(app, {
    servers: { value: byId },
    getServers: { value: () => byId },
    getServerById: { value: (id) => byId[id] },
    getServersByType: { value: () => servers },
  });
  return [guarded, message, view];
}

/** Calls the function and returns its answer, or the reason why there is none. */
function ask(route, [session, message, view]) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve({ why: 'it did not answer' }), ANSWER_TIMEOUT_MS);
    const answered = (error, id) => {
      clearTimeout(timer);
      resolve(error ? { why: `it answers with an error: ${error.message || error}` } : { id });
    };
    try {
      Promise.resolve(route(session, message, view, answered)).catch(answered);
    } catch (error) {
      answered(error);
    }
  });
}

module.exports = { tryRoutes };
