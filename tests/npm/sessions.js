// The sessions of a frontend in a delegate, without a framework. Ends with an error if they are wrong.
'use strict';

const assert = require('assert');
const { EventEmitter } = require('events');
const SessionService = require('../../npm/delegate/sessionService');

const living = new Set();
const failing = new Set(); // uids that the frontend refuses
const answer = (isRefused, cb) => cb(isRefused ? { stack: 'Error: refused\n    at tangelo' } : null);
const backend = {
  bind: (frontendId, sid, uid, cb) => answer(failing.has(uid), cb),
  unbind: (frontendId, sid, uid, cb) => answer(failing.has(uid), cb),
  get: (frontendId, sid, cb) => cb(null, living.has(sid) ? { id: sid } : undefined),
};
const app = { event: new EventEmitter(), get: () => backend };
const service = new SessionService(app, 'connector-1');
const seen = (id, uid = null) => service.seen({ id, frontendId: 'connector-1', uid, settings: {} });
const closed = [];
console.warn = () => {};

// A session has the uid of its messages until the process itself changes it.
seen(1, 'a');
assert.deepStrictEqual(service.getByUid('a').map((session) => session.id), [1]);
service.unbind(1, 'a');
seen(1, 'a');
assert.strictEqual(service.getByUid('a'), undefined);

// A refused change is taken back, and the callback gets an Error.
failing.add('b');
service.bind(1, 'b', (error) => assert.strictEqual(error.message, 'refused'));
assert.strictEqual(service.getByUid('b'), undefined);
service.bind(1, 7);
failing.add(7);
service.unbind(1, 7, (error) => assert(error instanceof Error));
assert.strictEqual(service.getByUid('7')[0].uid, 7);

// A check ends the sessions that the frontend no longer has, a few at a time, and no others.
for (let id = 2; id <= 9; id += 1) {
  seen(id).on('closed', () => closed.push(id));
}
[1, 3, 5, 7, 9].forEach((id) => living.add(id));
service.check(4);
assert.deepStrictEqual(closed, [2, 4]);
service.check(9);
assert.deepStrictEqual(closed, [2, 4, 6, 8]);
service.check(9);
assert.deepStrictEqual([closed.length, service.lost, service.getSessionsCount()], [4, 4, 5]);

// The end of a session is told once.
service.closed({ id: 3, frontendId: 'connector-1', uid: null, settings: {} });
service.closed({ id: 3, frontendId: 'connector-1', uid: null, settings: {} });
assert.deepStrictEqual(closed, [2, 4, 6, 8, 3]);

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
service.closed({ id: 20, frontendId: 'connector-1', uid: 'k', settings: {} });
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

// A message that left the frontend before a change does not undo it.
let answered = null;
backend.push = (frontendId, sid, key, value, cb) => { answered = cb; };
service.import(30, 'room', 2);
service.seen({ id: 30, frontendId: 'connector-1', uid: null, settings: { room: 1 } });
assert.deepStrictEqual([fresh.unanswered, fresh.get('room')], [1, 2]);
answered(null);
service.seen({ id: 30, frontendId: 'connector-1', uid: null, settings: { room: 3 } });
assert.deepStrictEqual([fresh.unanswered, fresh.get('room')], [0, 3]);

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
