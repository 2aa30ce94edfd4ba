// The order of calls to a frontend and answers to its clients, without a framework. Ends with an error if it is wrong.
'use strict';

const assert = require('assert');
const Outstanding = require('../../npm/delegate/outstanding');

const outstanding = new Outstanding();
const calls = []; // the callbacks of the calls that the framework has made
const sent = [];
const plain = (id, message, cb) => calls.push(cb);
const call = (service, cb) => outstanding.invoke(plain, 'connector-1', { namespace: 'sys', service }, cb);
const answer = (text, id = 'connector-1') => outstanding.after(id, () => sent.push(text));
const take = () => sent.splice(0);

// Without calls an answer leaves at once. A call holds later answers of its frontend, and no others.
answer('a');
call('sessionRemote');
answer('b');
answer('c', 'connector-2');
assert.deepStrictEqual(take(), ['a', 'c']);

// An answer waits for the calls before it, in whatever order they end, and not for those behind it.
call('channelRemote');
answer('d');
call('sessionRemote');
calls[1]();
assert.deepStrictEqual(take(), []);
calls[0]();
assert.deepStrictEqual(take(), ['b', 'd']);
calls[2]();
calls[2]();
answer('e');
assert.deepStrictEqual(take(), ['e']);

// A callback comes before the answers that wait for its call, and an answer that it begins waits too.
call('sessionRemote', (error) => {
  sent.push(`called back: ${error}`);
  answer('g');
});
answer('f');
calls[3]('no');
assert.deepStrictEqual(take(), ['called back: no', 'f', 'g']);

// A call that names users waits for the binds before it, and no kick or unbind overtakes a call that waits. Binds do not
// wait for each other, but one waits for a kick of its own uid.
const names = [];
const method = (name, ...args) => outstanding.invoke((id, message, cb) => {
  names.push(message.method + message.args.join());
  calls.push(cb);
}, 'connector-1', { namespace: 'sys', service: 'channelRemote', method: name, args }, () => {});
const made = calls.length;
method('bind', 1, 'a');
method('pushMessage');
method('kickBySid');
method('bind', 2, 'b');
method('push');
method('kickByUid', 'c');
method('bind', 3, 'c');
method('broadcast');
answer('after all');
assert.deepStrictEqual(names.splice(0), ['bind1,a', 'bind2,b', 'push']);
calls[made]();
assert.deepStrictEqual(names.splice(0), ['pushMessage', 'kickBySid']);
calls[made + 1]();
assert.deepStrictEqual(names.splice(0), ['kickByUidc', 'bind3,c']);
[2, 3, 4, 5].forEach((number) => calls[made + number]());
assert.deepStrictEqual([names.splice(0), take()], [[], []]);
calls[made + 6]();
assert.deepStrictEqual(names.splice(0), ['broadcast']);
calls[made + 7]();
assert.deepStrictEqual(take(), ['after all']);
method('kickBySid');
assert.deepStrictEqual(names, ['kickBySid']);
calls[made + 8]();
calls.length = made;

// A callback or the framework may throw.
call('sessionRemote', () => { throw new Error('of a callback'); });
answer('h');
assert.throws(() => calls[4](), /of a callback/);
const fails = () => { throw new Error('of the framework'); };
const message = { namespace: 'sys', service: 'sessionRemote' };
assert.throws(() => outstanding.invoke(fails, 'connector-1', message), /of the framework/);
answer('i');
assert.deepStrictEqual(take(), ['h', 'i']);
method('bind');
outstanding.invoke(fails, 'connector-1', { namespace: 'sys', service: 'channelRemote', method: 'broadcast' });
answer('after a call that failed late');
const { error } = console;
console.error = () => {};
calls.pop()();
console.error = error;
assert.deepStrictEqual(take(), ['after a call that failed late']);

// Calls of remotes and messages hold nothing.
call('msgRemote');
outstanding.invoke(plain, 'connector-1', { namespace: 'user', service: 'sessionRemote' });
answer('j');
assert.deepStrictEqual(take(), ['j']);

// A call that stays without an answer is given up, and so is a frontend that has left.
call('sessionRemote');
answer('k');
outstanding.giveUp(Date.now() - 60000);
assert.deepStrictEqual(take(), []);
const { warn } = console;
console.warn = () => {};
outstanding.giveUp(Date.now() + 1);
console.warn = warn;
assert.deepStrictEqual([take(), outstanding.givenUp], [['k'], 1]);
call('sessionRemote');
answer('l');
outstanding.forget('connector-1');
calls[7]();
calls[8]();
answer('m');
assert.deepStrictEqual(take(), ['l', 'm']);
