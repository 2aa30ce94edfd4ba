// Puts the delegate into a framework: each function below replaces one of the framework's and calls it.
'use strict';

const { ConnectorConfigs } = require('./connectorConfig');
const Delegate = require('./delegate');

// Lets the servers of the framework act for frontends of these types.
module.exports = function install(framework, types) {
  const { application, server, Dispatcher } = framework;
  const configs = new ConnectorConfigs(types);
  let delegate = null;

  const { init } = application;
  application.init = function (...args) {
    const result = init.apply(this, args);
    delegate = new Delegate(framework, this, types, configs);
    return result;
  };

  // Functions that configure a frontend run here too.
  const { configure } = application;
  application.configure = function (...args) {
    const [, only, block] = args;
    const named = args.length === 3 && only !== 'all' ? only.split('|') : null;
    if (named) {
      args[2] = configs.blockFor(named, block);
    }
    if (named && types.some((type) => named.includes(type))) {
      args[1] = 'all';
    }
    return configure.apply(this, args);
  };

  const { set } = application;
  application.set = function (...args) {
    const [name, value] = args;
    if (args.length > 1 && name === 'connectorConfig') {
      configs.set(value);
    }
    return set.apply(this, args);
  };

  // A frontend's code may give the configuration to the component itself, which counts then. It must not listen here.
  const { load } = application;
  application.load = function (...args) {
    const [component, config] = typeof args[0] === 'string' ? args.slice(1) : args;
    if (component !== framework.connector) {
      return load.apply(this, args);
    }
    configs.load(config || {});
    return undefined;
  };

  const { create } = server;
  server.create = function (...args) {
    const made = create.apply(this, args);
    const { handle } = made;
    made.handle = function (message, session, cb) {
      if (!delegate.handle(message, session, cb)) {
        handle.call(this, message, session, cb);
      }
    };
    return made;
  };

  const { route } = Dispatcher.prototype;
  Dispatcher.prototype.route = function (tracer, message, cb) {
    delegate.call(message, (services) => {
      const dispatcher = services ? Object.create(this, { services: { value: services } }) : this;
      route.call(dispatcher, tracer, message, cb);
    });
  };
};
