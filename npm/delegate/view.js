// One frontend as its code sees it: an application with the frontend's id and type, a server with its handlers, filters
// and crons, its remotes and its sessions. Each frontend has all of that for itself, because each genuine frontend is a
// process of its own.
'use strict';

const { runFor } = require('./current');
const FrontendSession = require('./frontendSession');
const Session = require('./session');
const SessionService = require('./sessionService');

module.exports = class View {
  constructor(framework, app, type, id, connectorConfig) {
    this.sessions = new SessionService(app, id);
    this.notices = { user: { tangelo: notices(this.sessions) } };
    const own = {
      serverId: id,
      serverType: type,
      curServer: { ...app.servers[id], id, serverType: type, frontend: 'true' },
      sessionService: this.sessions,
      channelService: new framework.ChannelService(app, app.get('channelConfig')),
    };
    const settings = Object.assign(Object.create(app.settings), own, { connectorConfig });
    this.app = Object.assign(Object.create(app), own, { settings });
    // Of several delegates the first one runs the crons.
    const delegates = () => app.getServersByType(app.serverType) || [];
    const runsCrons = () => delegates().every((other) => app.serverId <= other.id);
    this.run(() => {
      this.services = services(framework, this.app);
      this.server = startServer(framework, this.app, runsCrons);
    });
  }

  run(work) {
    return runFor(this.app, work);
  }

  // Handles a client's message as the frontend itself would.
  handle(message, exported, answer) {
    this.run(() => {
      const session = this.sessions.seen(exported);
      const { uid, settings } = session;
      // The message has left the frontend before these changes.
      const state = session.unconfirmed.size > 0 ? { uid, settings: { ...exported.settings, ...settings } } : exported;
      this.server.globalHandle(message, new FrontendSession(session, state), answer);
    });
  }

  // Asks the project's route function for the server of a session's messages.
  route(exported, serverType) {
    const session = this.sessions.get(exported.id) || new Session(exported, this.sessions);
    const message = { namespace: 'sys', serverType, service: 'msgRemote', method: 'forwardMessage', args: [{}, exported] };
    const { router } = this.app.components.__proxy__.client;
    return new Promise((resolve, reject) => {
      const done = (error, id) => (error ? reject(error) : resolve(id));
      router(new FrontendSession(session, exported), message, this.app, done);
    });
  }

  stop() {
    this.server.removeCrons(this.server.crons);
    this.server.stop();
  }
};

// Starts the framework's server for a frontend. It must not hear of crons that are added for other servers.
function startServer(framework, app, runsCrons) {
  app.event = { on() {} };
  const server = framework.createServer(app, app.get('serverConfig'));
  delete app.event;
  let cronHandlers;
  Object.defineProperty(server, 'cronHandlers', {
    get: () => cronHandlers,
    set: (loaded) => { cronHandlers = guarded(loaded, runsCrons); },
  });
  app.addCrons = (crons) => server.addCrons(crons);
  app.removeCrons = (crons) => server.removeCrons(crons);
  try {
    server.start();
    server.afterStart();
  } catch (error) {
    // The next message tries again, and must not find crons of this try.
    server.removeCrons(server.crons);
    throw error;
  }
  return server;
}

// Returns crons whose functions do nothing where they must not run.
function guarded(handlers, runs) {
  const guard = (handler) => new Proxy(handler, {
    get: (target, name) => (typeof target[name] === 'function' ? (...args) => runs() && target[name](...args) : target[name]),
  });
  return Object.fromEntries(Object.entries(handlers || {}).map(([name, handler]) => [name, guard(handler)]));
}

// Returns tangelo's notices as remotes. The one of Pinus has no callback.
function notices(sessions) {
  const remote = (take) => (...args) => {
    take(...args);
    const cb = args.pop();
    if (typeof cb === 'function') {
      cb(null);
    }
  };
  return {
    changed: remote((state) => sessions.changed(state)),
    closed: remote((state) => sessions.closed(state)),
    sessions: remote((head, states) => sessions.list(head, states)),
  };
}

// Loads the remotes of a frontend.
function services({ paths, loadRemotes, hasNamespace }, app) {
  const folder = paths.getUserRemotePath(app.getBase(), app.serverType);
  if (!folder) {
    return hasNamespace ? { user: {} } : {};
  }
  return { user: loadRemotes(folder, app) || {} };
}
