// Which route functions use nothing but the session and the list of servers, by their text.
'use strict';

const assert = require('assert');
const { usesSessionOnly } = require('../../npm/lib/record/sessionOnly');

let turn = 0;
const crc = require('zlib');

const KEPT = [
  (session, msg, app, cb) => cb(null, app.getServersByType('a')[session.get('lane') % 2].id),
  function (session, msg, app, cb) {
    var servers = app.getServersByType('area'); // a comment with ` and /
    if (!servers || servers.length === 0) {
      cb(new Error('no servers'));
      return;
    }
    var n = 0;
    for (let i = 0; i < 3; i++) { n += i; }
    cb(null, servers[Math.abs(Number(session.get("rid")) + n / 2) % servers.length].id);
  },
  function chat(session, msg, app, cb) {
    return cb(null, app.getServersByType('chat').find(function (it) { return it.port > 1; }).id);
  },
  (s, m, a, done) => {
    const found = a.getServersByType('b').filter((it, n) => n !== 7 && it.id !== s.uid).map((it) => it.id);
    done(null, found[0]);
  },
  async (session, msg, app, cb) => cb(null, session.get('id')),
];

const ASKED = [
  // The message.
  (session, msg, app, cb) => cb(null, msg.args[0].x),
  (session, { args }, app, cb) => cb(null, args),
  (session, msg, ...rest) => rest[1](null, 'x'),
  function (session, msg, app, cb) { cb(null, arguments[1].x); },
  // Something outside.
  (session, msg, app, cb) => { turn += 1; cb(null, app.getServersByType('a')[turn % 2].id); },
  (session, msg, app, cb) => { turn ||= 3; cb(null, 'a'); },
  (session, msg, app, cb) => cb(null, crc.crc32(session.uid)),
  (session, msg, app, cb) => { const it = require('crc'); cb(null, it); },
  (session, msg, app, cb) => { cb(null, app.get('counter')); },
  (session, msg, app, cb) => { cb(null, session.__session__.x); },
  function (session, msg, app, cb) { cb(null, this.x); },
  function route(session, msg, app, cb) { route.n = 1; cb(null, 'x'); },
  // Chance and time.
  (session, msg, app, cb) => cb(null, app.getServersByType('a')[Math.floor(Math.random() * 2)].id),
  (session, msg, app, cb) => cb(null, app.getServersByType('a')[Math['random']() * 2 | 0].id),
  (session, msg, app, cb) => cb(null, String(Date.now())),
  (session, msg, app, cb) => cb(null, `${Date.now()}`),
  (session, msg, app, cb) => { setTimeout(() => cb(null, 'x'), 1); },
  async (session, msg, app, cb) => cb(null, await session.get('a')),
  // Changes of the session or the list.
  (session, msg, app, cb) => { session.set('a', 1); cb(null, 'x'); },
  (session, msg, app, cb) => { session.get('list').push(1); cb(null, 'x'); },
  (session, msg, app, cb) => { session.get('a').b **= 3; cb(null, 'a'); },
  (session, msg, app, cb) => { app.turn = 1; cb(null, 'x'); },
  (session, msg, app, cb) => { app.getServersByType('a')[0].n++; cb(null, 'x'); },
  (session, msg, app, cb) => { ++app.getServersByType('a')[0].n; cb(null, 'x'); },
  (session, msg, app, cb) => { app.getServersByType('a')[0].n += 1; cb(null, 'x'); },
  (session, msg, app, cb) => { const list = app.getServersByType('a'); list[0]['id'] = 1; cb(null, 'x'); },
  (session, msg, app, cb) => { const list = app.getServersByType('a'); list.sort(); cb(null, list[0].id); },
  (session, msg, app, cb) => { delete app.getServersByType('a')[0].id; cb(null, 'a'); },
  (session, msg, app, cb) => { for (app.getServersByType('a')[0].id of [1]) { cb(null, 'x'); } },
  // Words that the test does not know.
  (session, msg, app, cb) => { const it = session; cb(null, it.a); },
  (session, msg, app, cb) => { const it = { session }; cb(null, it); },
  (session, msg, app, cb) => { cb(null, /x/.test(session.uid)); },
  (session, msg, app, cb) => { cb(null, cb.constructor('return Date.now()')()); },
  (session, msg, app, cb) => { const it = eval; cb(null, it); },
  function () {}.bind(null),
];

for (const route of KEPT) assert(usesSessionOnly(route), String(route));
for (const route of ASKED) assert(!usesSessionOnly(route), String(route));
