// The sessions of a frontend in a delegate, without a framework. Ends with an error if they are wrong.
'use strict';

const assert = require('assert');
const { EventEmitter } = require('events');
const SessionService = require('../../npm/delegate/sessionService');

const failing = new Set(); // uids that the frontend refuses
const calls = []; // to the frontend, without an answer yet
let waits = false; // calls wait in that list
const backend = {};
const invoke = (frontendId, { method, args, change }, cb) => {
  const isRefused = failing.has(args[1]);
  const answer = () => cb(isRefused ? { stack: 'Error: refused\n    at tangelo' } : null);
  calls.push({ method, args, change, answer });
  if (!waits) {
    calls[calls.length - 1].answer();
  }
};
const app = { event: new EventEmitter(), get: () => backend, rpcInvoke: invoke };
const service = new SessionService(app, 'connector-1');
const state = (id, uid = null, settings = {}, more = {}) => ({ id, frontendId: 'connector-1', uid, settings, own: true, ...more });
const seen = (id, uid) => service.seen(state(id, uid));
const closed = [];
console.warn = () => {};
const ids = (uid) => (service.getByUid(uid) || []).map((session) => session.id);

// A new session has the uid of its message; after that only changes count.
seen(1, 'a');
assert.deepStrictEqual(ids('a'), [1]);
service.unbind(1, 'a');
seen(1, 'a');
assert.deepStrictEqual(ids('a'), []);

// A refused change is taken back, and the callback gets an Error.
failing.add('b');
service.bind(1, 'b', (error) => assert.strictEqual(error.message, 'refused'));
assert.strictEqual(service.getByUid('b'), undefined);
service.bind(1, 7);
failing.add(7);
service.unbind(1, 7, (error) => assert(error instanceof Error));
assert.strictEqual(service.getByUid('7')[0].uid, 7);
failing.clear();

// Notices bring sessions that never sent a message, and what others change, with its events.
const told = [];
for (const name of ['bind_session', 'unbind_session', 'close_session']) {
  app.event.on(name, ({ id, uid }) => told.push(`${name} ${id} ${uid}`));
}
service.changed(state(40, 'n', { room: 1 }, { remoteAddress: { ip: '::1', port: 9 } }));
assert.deepStrictEqual([ids('n'), service.get(40).get('room'), service.getClientAddressBySessionId(40).port], [[40], 1, 9]);
service.get(40).on('unbind', (uid) => told.push(`unbind ${uid}`)).on('bind', (uid) => told.push(`bind ${uid}`));
service.changed(state(40, 'm', { x: 2 }));
assert.deepStrictEqual([ids('n'), ids('m'), service.get(40).settings], [[], [40], { x: 2 }]);
assert.deepStrictEqual(told.splice(0), [
  'bind_session 40 n', 'unbind_session 40 null', 'unbind n', 'bind_session 40 m', 'bind m',
]);

// States from before an own change do not undo it, whichever connection is faster; the notice of the change confirms it.
service.changed(state(40, null, {}));
told.splice(0);
waits = true;
calls.splice(0);
service.import(40, 'a', 1);
service.bind(40, 'own');
service.import(40, 'b', 2);
const [first, second, third] = calls.splice(0);
[first, second, third].forEach(({ answer }) => answer());
service.changed(state(40, null, { other: 1 }));
service.changed(state(40, null, { other: 1, a: 1 }, { change: first.change }));
assert.deepStrictEqual([ids('own'), service.get(40).settings], [[40], { a: 1, b: 2 }]);
service.changed(state(40, 'own', { other: 1, a: 1 }, { change: second.change }));
service.changed(state(40, 'own', { other: 1, a: 1, b: 2 }, { change: third.change }));
assert.deepStrictEqual([ids('own'), service.get(40).settings], [[40], { other: 1, a: 1, b: 2 }]);
assert.deepStrictEqual(told.splice(0), ['bind_session 40 own', 'bind own']);
waits = false;

// The application hears of a session in one delegate only, the listeners of the session in each.
service.changed(state(44, 'elsewhere', {}, { own: false }));
service.get(44).on('unbind', (uid) => told.push(`unbind ${uid}`));
service.changed(state(44, null, {}, { own: false }));
assert.deepStrictEqual(told.splice(0), ['unbind elsewhere']);
service.closed(state(44, null, {}, { own: false }));
service.closed(state(45, 'never seen', {}, { own: false }));
assert.deepStrictEqual(told.splice(0), []);
service.closed(state(46, 'missed', {}));
assert.deepStrictEqual(told.splice(0), ['close_session 46 missed']);

// The name of a change of another delegate confirms nothing.
service.import(40, 'a', 5);
service.changed(state(40, 'own', {}, { change: 'other.999' }));
assert.strictEqual(service.get(40).get('a'), 5);

// A complete list confirms what was answered before, and ends the sessions that are not in it, of its own shard only.
const SHARD = 256;
for (const id of [SHARD, 2 * SHARD, 3 * SHARD, SHARD + 1, SHARD + 9]) {
  seen(id, `user-${id}`).on('closed', () => closed.push(id));
}
const head = { shard: 0, shards: 2 };
service.list({ ...head, first: true, last: false }, [state(2 * SHARD, 'user-512', { told: true })]);
seen(4 * SHARD).on('closed', () => closed.push(4 * SHARD));
assert.deepStrictEqual(closed, []);
service.list({ ...head, first: false, last: true }, [state(5 * SHARD, 'missed')]);
assert.deepStrictEqual(closed.splice(0), [SHARD, 3 * SHARD, SHARD + 9]);
assert.deepStrictEqual([service.lost, ids('missed'), service.get(2 * SHARD).get('told')], [4, [5 * SHARD], true]);
assert.strictEqual(service.get(40), undefined);
const lines = [];
console.warn = (line) => lines.push(line);
service.list({ shard: 1, shards: 2, first: true, last: true }, [state(SHARD + 1, 'user-257')]);
service.list({ shard: 0, shards: 2, first: true, last: true }, [state(4 * SHARD), state(6 * SHARD, 'late')]);
const earlier = lines.filter((line) => /: 1 sessions of connector-1 began before this process/.test(line));
assert.deepStrictEqual([earlier.length, ids('late')], [1, [6 * SHARD]]);
console.warn = () => {};
closed.splice(0);
seen(3).on('closed', () => closed.push(3));

// The end of a session is told once.
service.closed(state(3));
service.closed(state(3));
assert.deepStrictEqual(closed, [3]);

// A kicked session has ended before the callback, with its reason; the notice that follows tells nobody again.
const events = [];
app.event.on('close_session', ({ uid }) => events.push(`close_session ${uid}`));
let kicked = null;
backend.kickByUid = backend.kickBySid = (frontendId, who, reason, cb) => { kicked = cb; };
seen(20, 'k').on('closed', ({ uid }, reason) => events.push(`closed ${uid} ${reason}`));
service.kick('k', 'bye', () => events.push('called back'));
assert.deepStrictEqual(events.splice(0), ['close_session k', 'closed k bye']);
assert.deepStrictEqual([service.get(20), service.getByUid('k')], [undefined, undefined]);
seen(20, 'k');
kicked(null);
service.closed(state(20, 'k'));
assert.deepStrictEqual([events.splice(0), service.get(20)], [['called back'], undefined]);
seen(21, 'k').on('closed', (session, reason) => events.push(`closed ${reason}`));
service.kickBySessionId(21, () => {});
assert.deepStrictEqual(events.splice(0), ['close_session k', 'closed kick']);

// A first message, which has the client's address, is of a new session: an earlier process had the same id.
seen(30, 'old').on('closed', () => events.push('closed'));
const fresh = service.seen({ id: 30, frontendId: 'connector-1', uid: null, settings: {}, remoteAddress: { ip: '::1', port: 1 } });
assert.deepStrictEqual(events.splice(0), ['close_session old', 'closed']);
assert.deepStrictEqual([fresh.uid, fresh.remoteAddress.ip, fresh.listenerCount('closed')], [null, '::1', 0]);
assert.strictEqual(service.getByUid('old'), undefined);

// Two frontends may have sessions with the same id: the view of all of them touches neither.
const AllSessions = require('../../npm/delegate/allSessions');
const other = new SessionService(app, 'connector-2');
const all = new AllSessions(new Map([['connector-1', { sessions: service }], ['connector-2', { sessions: other }]]));
other.seen({ id: 30, frontendId: 'connector-2', uid: null, settings: {} });
other.seen({ id: 31, frontendId: 'connector-2', uid: null, settings: {} });
kicked = null;
all.kickBySessionId(30, 'bye', () => {});
assert.deepStrictEqual([all.get(30), kicked, all.get(31).frontendId], [undefined, null, 'connector-2']);
all.bind(31, 'x');
assert.strictEqual(all.getByUid('x')[0].id, 31);
all.abind(30, 'y').then(() => process.exit(1), ({ message }) => assert.match(message, /does not exist/));
