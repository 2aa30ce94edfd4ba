// The backend half of the reference application: each method is one kind of answer. Names and
// answers are those of tests/genuine/pomelo, as far as the framework can give them.
'use strict';

exports.default = (app) => new Handler(app);

// The session as the frontend sent it.
const exported = (session) => ({
  id: session.id,
  frontendId: session.frontendId,
  uid: session.uid,
  settings: session.settings,
});

// The first line of the error's stack, or null.
const text = (err) => (err ? String(err.stack || err).split('\n')[0] : null);

// The arguments of a callback of the framework, error first.
const given = (call) => new Promise((resolve) => call((...args) => resolve(args)));

// The frontend that a message is about: the asking session's, if it names none.
const frontend = (m, session) => m.frontendId || session.frontendId;

const listKey = (m, session) => [session.frontendId, session.id, m.list].join('/');

class Handler {
  constructor(app) {
    this.app = app;
    this.lists = new Map(); // one session's list of one name → what its notes said, oldest first
  }

  async send(m, session) {
    return { got: m, sess: exported(session) };
  }

  async echo(m) {
    return m;
  }

  async whoami(m, session) {
    return Object.assign({ server: this.app.getServerId() }, exported(session));
  }

  // Errors. An async handler has no way to send a response beside them.

  async errOnly() {
    throw new Error('backend boom');
  }

  async errCode() {
    throw Object.assign(new Error('backend boom'), { code: 417, msg: 'bad' });
  }

  async errStr() {
    throw 'just a string';
  }

  // Responses that are not objects.

  async noResp() {
    return null;
  }

  async strResp() {
    return 'hello';
  }

  async numResp() {
    return 42;
  }

  async arrResp() {
    return [1, 2, 3];
  }

  async zeroResp() {
    return 0;
  }

  // Time and size.

  async slow(m) {
    await new Promise((resolve) => setTimeout(resolve, m.ms));
    return { slow: m.ms, tag: m.tag };
  }

  never() {
    return new Promise(() => {});
  }

  async big(m) {
    return { s: 'x'.repeat(m.n) };
  }

  async size(m) {
    return { n: m.s.length };
  }

  // Memory: what arrived, in the order in which it arrived. A list belongs to one session and one
  // name; the name keeps tests apart that meet the same session id on one backend.

  async note(m, session) {
    const key = listKey(m, session);
    if (!this.lists.has(key)) {
      this.lists.set(key, []);
    }
    this.lists.get(key).push(m.n);
    return null;
  }

  async notes(m, session) {
    return { notes: this.lists.get(listKey(m, session)) || [] };
  }

  // The servers that this server knows.

  async servers() {
    return { ids: Object.keys(this.app.getServers()) };
  }

  // The session at its frontend.

  async bind(m, session) {
    const [err] = await given((cb) => session.bind(m.uid, cb));
    return { err: text(err), uid: session.uid };
  }

  async unbind(m, session) {
    const [err] = await given((cb) => session.unbind(m.uid, cb));
    return { err: text(err), uid: session.uid };
  }

  async setOnly(m, session) {
    session.set(m.k, m.v);
    return exported(session);
  }

  async setPush(m, session) {
    session.set(m.k, m.v);
    const [err] = await given((cb) => session.push(m.k, cb));
    return { err: text(err) };
  }

  async pushAll(m, session) {
    Object.keys(m.kv).forEach((key) => session.set(key, m.kv[key]));
    const [err] = await given((cb) => session.pushAll(cb));
    return { err: text(err) };
  }

  // Any session of a frontend.

  async bySid(m, session) {
    const service = this.app.get('backendSessionService');
    const [err, found] = await given((cb) => service.get(frontend(m, session), m.sid, cb));
    return { err: text(err), session: found ? exported(found) : null };
  }

  async byUid(m, session) {
    const service = this.app.get('backendSessionService');
    const [err, found] = await given((cb) => service.getByUid(frontend(m, session), m.uid, cb));
    return { err: text(err), sessions: found ? found.map(exported) : null };
  }

  // Without a `reason` in the message, none is in the call either; null is one.

  async kickSid(m, session) {
    const service = this.app.get('backendSessionService');
    const args = [frontend(m, session), m.sid].concat('reason' in m ? [m.reason] : []);
    const [err] = await given((cb) => service.kickBySid(...args, cb));
    return { err: text(err) };
  }

  async kickUid(m, session) {
    const service = this.app.get('backendSessionService');
    const args = [frontend(m, session), m.uid].concat('reason' in m ? [m.reason] : []);
    const [err] = await given((cb) => service.kickByUid(...args, cb));
    return { err: text(err) };
  }

  // Pushes. Each answers when the frontends have, and the other at once.

  async pushUids(m) {
    const service = this.app.get('channelService');
    const [err, fails] = await given((cb) =>
      service.pushMessageByUids(m.route, m.msg, m.uids, m.opts, cb),
    );
    return { err: text(err), fails };
  }

  async pushUidsNoWait(m) {
    const service = this.app.get('channelService');
    service.pushMessageByUids(m.route, m.msg, m.uids, m.opts, () => {});
    return { pushed: true };
  }

  async join(m, session) {
    const channel = this.app.get('channelService').getChannel(m.channel, true);
    return { joined: channel.add(m.uid || session.uid, session.frontendId) };
  }

  async leave(m, session) {
    const channel = this.app.get('channelService').getChannel(m.channel, true);
    return { left: channel.leave(m.uid || session.uid, session.frontendId) };
  }

  async channelPush(m) {
    const channel = this.app.get('channelService').getChannel(m.channel, true);
    const [err, fails] = await given((cb) => channel.pushMessage(m.route, m.msg, m.opts, cb));
    return { err: text(err), fails };
  }

  async bcast(m) {
    const service = this.app.get('channelService');
    const [err] = await given((cb) =>
      service.broadcast('connector', m.route, m.msg, m.opts, cb),
    );
    return { err: text(err) };
  }

  // Any call of a frontend, as it comes: the values behind the error are in `values`.

  async remoteRaw(m, session) {
    const { namespace, service, method, args } = m;
    const call = { namespace, service, method, args };
    const [err, ...values] = await given((cb) => this.app.rpcInvoke(frontend(m, session), call, cb));
    return { err: text(err), values };
  }

  // A remote of the frontend's application, through the stub that the framework makes.

  async remoteUser(m, session) {
    const remote = this.app.rpc.connector.infoRemote[m.method];
    try {
      return { err: null, values: [await remote.to(frontend(m, session))(...m.args)] };
    } catch (err) {
      return { err: text(err), values: [] };
    }
  }

  // Misfortune.

  async exit() {
    process.exit(3);
  }

  async hang(m) {
    const end = Date.now() + m.ms;
    while (Date.now() < end);
    return { hung: m.ms };
  }
}
