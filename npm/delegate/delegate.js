// The delegate of this process: the frontends that it acts for.
'use strict';

const AllSessions = require('./allSessions');
const { answerHandshake, blacklist } = require('./connectorConfig');
const loadLifecycles = require('./lifecycle');
const Outstanding = require('./outstanding');
const View = require('./view');

// Time after which a frontend that has left is forgotten. One that lost only its master is back before.
const FORGET_MS = 60000;

// Dead processes of a frontend whose late calls are known as such, and frontends whose processes are known.
const DEAD_MAX = 16;
const FRONTENDS_MAX = 1000;

module.exports = class Delegate {
  constructor(framework, app, types, configs) {
    this.framework = framework;
    this.app = app;
    this.types = types;
    this.configs = configs;
    this.views = new Map(); // by the id of the frontend
    this.processes = new Map(); // by the id of the frontend
    this.outstanding = new Outstanding();
    this.questions = {
      user: {
        tangelo: {
          handshake: (session, message, cb) => this.handshake(session, message, cb),
          route: (session, type, cb) => this.route(session, type, cb),
          blacklist: (frontend, cb) => this.blacklist(frontend, cb),
        },
      },
    };
    this.watchCalls();
    app.set('sessionService', new AllSessions(this.views), true);
    loadLifecycles(app, types);
    app.event.on('remove_servers', (ids) => ids.forEach((id) => this.left(id)));
  }

  // Sees all calls to frontends from the moment at which the framework can make some.
  watchCalls() {
    let invoke;
    Object.defineProperty(this.app, 'rpcInvoke', {
      get: () => invoke,
      set: (plain) => { invoke = (id, message, cb) => this.outstanding.invoke(plain, id, message, cb); },
      configurable: true,
      enumerable: true,
    });
  }

  // Handles a message as its frontend would: by a handler, or by sending it on to a server of another type. Returns
  // false for a message for this server's own type.
  handle(message, session, cb) {
    const [type] = String(message.route).split('.');
    if (type === this.app.serverType) {
      return false;
    }
    const { frontendId } = session;
    const serverType = this.typeOf(frontendId) || this.types[0];
    const answer = (...results) => this.outstanding.after(frontendId, () => cb(...results));
    this.view(frontendId, this.types.includes(type) ? type : serverType).handle(message, session, answer);
    return true;
  }

  // Makes a call of a remote: with the remotes of the frontend that it came through, with the functions for its notices or
  // for tangelo's questions, or with the remotes of this server.
  call({ namespace, service, serverType, frontendId, method, process: name }, make) {
    if (name && !this.isAlive(frontendId, name)) {
      return;
    }
    const isOurs = namespace === 'user' && service === 'tangelo';
    if (isOurs && Object.hasOwn(this.questions.user.tangelo, method)) {
      make(this.questions);
      return;
    }
    if (namespace !== 'user' || frontendId === undefined) {
      make();
      return;
    }
    const view = this.view(frontendId, serverType);
    view.run(() => make(isOurs ? view.notices : view.services));
  }

  // Answers a client's handshake by the functions of its frontend's `connectorConfig`.
  handshake({ id, frontendId, remoteAddress }, message, cb) {
    return answered(cb, this.asConnector(frontendId, (config) => answerHandshake(config, message, { id, remoteAddress })));
  }

  // Returns the list of the frontend's `blacklistFun`.
  blacklist({ frontendId }, cb) {
    return answered(cb, this.asConnector(frontendId, blacklist));
  }

  // Returns the server that the project's route function chooses for a session.
  route(session, serverType, cb) {
    return answered(cb, this.asConnector(session.frontendId, (_, view) => view.route(session, serverType)));
  }

  // Runs code of a frontend's connector.
  async asConnector(id, work) {
    const type = this.typeOf(id);
    if (!type) {
      throw new Error(`the master has not told of ${id} yet`);
    }
    const view = this.view(id, type);
    return view.run(() => work(this.configs.get(type) || {}, view));
  }

  // Returns the type of a frontend, if it is known.
  typeOf(id) {
    const [first, ...more] = this.types;
    return this.app.servers[id] ? this.app.servers[id].serverType : (more.length === 0 && first);
  }

  // Returns the view of a frontend. It begins with the first notice, message or call, because a frontend that sends none
  // may be a genuine one, which runs its code itself.
  view(id, type) {
    let view = this.views.get(id);
    if (!view) {
      view = new View(this.framework, this.app, type, id, this.configs.get(type));
      this.views.set(id, view);
    }
    return view;
  }

  // Returns whether a call is of the living process of a frontend. A new name is that of a new process, which has none of
  // the old sessions; calls of the dead one may still come, because each process has a connection of its own.
  isAlive(id, name) {
    const known = this.processes.get(id) || { now: name, dead: [], at: 0 };
    if (known.dead.includes(name)) {
      return false;
    }
    if (known.now !== name) {
      this.forget(id);
      known.dead = [...known.dead, known.now].slice(-DEAD_MAX);
      known.now = name;
    }
    known.at = Date.now();
    this.processes.set(id, known);
    if (this.processes.size > FRONTENDS_MAX) {
      this.processes.delete(this.processes.keys().next().value);
    }
    return true;
  }

  // Forgets a frontend that has left, unless it is back or still calls: then it has lost only its master.
  left(id) {
    const since = Date.now();
    const forget = () => {
      if (this.isBack(id)) {
        return;
      }
      const { at = 0 } = this.processes.get(id) || {};
      if (at >= since) {
        this.left(id);
      } else {
        this.forget(id);
      }
    };
    setTimeout(forget, FORGET_MS).unref();
  }

  // Returns whether the list of servers has the process that called last. A name begins with the process id, which the
  // master tells too: a genuine frontend may have taken the place. An older tangelo has no name.
  isBack(id) {
    const server = this.app.servers[id];
    const { now } = this.processes.get(id) || {};
    return Boolean(server) && (now === undefined || now.startsWith(`${server.pid}.`));
  }

  forget(id) {
    const view = this.views.get(id);
    if (view) {
      this.views.delete(id);
      view.stop();
    }
    this.outstanding.forget(id);
  }
};

// Answers a call: Pomelo gives a callback, Pinus takes a promise.
function answered(cb, result) {
  if (!cb) {
    return result;
  }
  // An error that `cb` throws must not become a rejected promise, which would end the process.
  return result.then((value) => process.nextTick(cb, null, value), (error) => process.nextTick(cb, error));
}
