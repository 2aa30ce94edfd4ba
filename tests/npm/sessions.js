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
