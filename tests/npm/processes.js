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
