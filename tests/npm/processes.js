// The processes of a frontend, one after the other, as a delegate tells them apart. Ends with an error if it does not.
'use strict';

const assert = require('assert');
const Delegate = require('../../npm/delegate/delegate');

let stopped = 0;
const view = () => ({ stop() { stopped += 1; } });
const delegate = Object.assign(Object.create(Delegate.prototype), {
  views: new Map(), processes: new Map(), outstanding: { forget() {} },
});
const calls = (name) => delegate.isAlive('connector-1', name);

assert(calls('1.100'));
delegate.views.set('connector-1', view());
assert(calls('1.100'));
assert.strictEqual(stopped, 0);

// A new process has none of the old sessions. Calls of the dead one come late and change nothing.
assert(calls('1.200'));
assert.strictEqual(stopped, 1);
delegate.views.set('connector-1', view());
assert(!calls('1.100'));
assert(calls('1.200'));
assert.deepStrictEqual([stopped, delegate.views.size], [1, 1]);

// The order of the names has no meaning: a clock may go back. Another frontend is not concerned.
assert(calls('1.150'));
assert(delegate.isAlive('connector-2', '1.200'));
assert.deepStrictEqual([stopped, delegate.views.size], [2, 0]);

// Also after a third process, calls of the first one change nothing.
delegate.views.set('connector-1', view());
assert(!calls('1.100') && !calls('1.200') && calls('1.150'));
assert.deepStrictEqual([stopped, delegate.views.size], [2, 1]);

// A frontend is back if the master's list has the process that called last. One without a name is of an older version.
const isBack = (servers, id) => Object.assign(delegate, { app: { servers } }).isBack(id);
assert(isBack({ 'connector-1': { pid: 1 } }, 'connector-1'));
assert(!isBack({ 'connector-1': { pid: 2 } }, 'connector-1'));
assert(!isBack({}, 'connector-1'));
assert(isBack({ 'connector-3': { pid: 2 } }, 'connector-3'));

// The tables are bounded: of dead processes the last ones are known.
for (let start = 1000; start < 1040; start += 1) {
  assert(calls(`1.${start}`));
}
assert(!calls('1.1038'));
assert.strictEqual(delegate.processes.get('connector-1').dead.length, 16);
for (let n = 0; n < 1200; n += 1) {
  delegate.isAlive(`other-${n}`, '1.1');
}
assert.strictEqual(delegate.processes.size, 1000);
