// The backend: it calls remotes of the frontend of its session.
'use strict';

exports.default = (app) => new Handler(app);

const text = (err) => (err ? String(err.stack || err).split('\n')[0] : null);

class Handler {
  constructor(app) {
    this.app = app;
  }

  async call(m, session) {
    const remote = this.app.rpc.connector.entryRemote[m.method];
    try {
      return { err: null, values: [await remote.to(session.frontendId)(...m.args)] };
    } catch (err) {
      return { err: text(err), values: [] };
    }
  }

  async where(m, session) {
    if (m.fail) {
      throw new Error('no');
    }
    const { uid, settings } = session;
    return { server: this.app.getServerId(), m, uid, settings };
  }

  // A session is bound, changed and unbound by another server than its connector.
  async login(m, session) {
    await session.abind(m.uid);
    session.set('room', m.room);
    await session.apush('room');
    return { code: 200 };
  }

  async logout(m, session) {
    await session.aunbind(session.uid);
    return { code: 200 };
  }

  async unknown(m, session) {
    const call = { namespace: 'user', serverType: 'connector', service: m.service, method: 'nothing', args: [] };
    return new Promise((done) => {
      this.app.rpcInvoke(session.frontendId, call, (err) => done({ err: text(err) }));
    });
  }

  // The servers that this server knows: the tests wait for that.
  async servers() {
    return { ids: Object.keys(this.app.getServers()) };
  }
}
