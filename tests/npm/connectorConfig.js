// Functions of `connectorConfig`: each type of frontends has its own, and their answers are those of the framework.
'use strict';

const assert = require('assert');
const { ConnectorConfigs, answerHandshake, blacklist } = require('../../npm/delegate/connectorConfig');

const configs = new ConnectorConfigs(['connector', 'gate']);
configs.set('all');
configs.blockFor(['gate', 'chat'], (name) => configs.set(name))('gate');
configs.blockFor(['entry'], () => configs.set('entry'))();
assert.throws(configs.blockFor(['entry'], () => { throw new Error('no'); }), /no/);
assert.deepStrictEqual([configs.get('connector'), configs.get('gate'), configs.get('entry')], ['all', 'gate', undefined]);
configs.set('last');
assert.deepStrictEqual([configs.get('connector'), configs.get('gate')], ['last', 'last']);
configs.blockFor(['gate'], () => ['first', 'second'].forEach((config) => configs.load(config)))();
configs.set('later');
assert.deepStrictEqual([configs.get('connector'), configs.get('gate')], ['later', 'first']);

const message = { sys: { type: 'a', version: '1' }, user: 7 };
const socket = { id: 3 };

async function check() {
  const answers = [
    [{}, { code: 200 }],
    [{ checkClient: (type, version) => type === 'a' && version === '1' }, { code: 200 }],
    [{ checkClient: () => 0, handshake: () => assert.fail('it is refused') }, { code: 501 }],
    // As in the framework, a promise is something.
    [{ checkClient: async () => false }, { code: 200 }],
    [{ handshake: ({ user }, cb, { id }) => cb(null, [user, id]) }, { code: 200, user: [7, 3] }],
    [{ handshake: (_, cb) => { cb('no', 1); cb(null, 2); } }, { code: 500 }],
  ];
  for (const [config, answer] of answers) {
    assert.deepStrictEqual(await answerHandshake(config, message, socket), answer);
  }
  const thrown = answerHandshake({ handshake: () => { throw new Error('boom'); } }, message, socket);
  await assert.rejects(thrown, /boom/);

  assert.deepStrictEqual(await blacklist({}), []);
  const list = ['^10\\.', /a\/b/, 1, /fe80|::A/gi, /x$/my, /a|b/y];
  const texts = ['^10\\.', 'a\\/b', '1', '(?i:fe80|::A)', '^(?m:x$)', '^(?:a|b)'];
  assert.deepStrictEqual(await blacklist({ blacklistFun: (cb) => cb(null, list) }), texts);
  for (const found of ['text', null, ['(']]) {
    await assert.rejects(blacklist({ blacklistFun: (cb) => cb(null, found) }));
  }
  await assert.rejects(blacklist({ blacklistFun: (cb) => cb(new Error('no')) }), /no/);
}

check();
