// Puts the delegate into a framework: each function below replaces one of the framework's and calls it.
'use strict';

const Delegate = require('./delegate');

// Lets the servers of the framework act for frontends of these types.
module.exports = function install(framework, types) {
  const { application, server, Dispatcher } = framework;
  let delegate = null;

  const { init } = application;
  application.init = function (...args) {
    const result = init.apply(this, args);
    delegate = new Delegate(framework, this, types);
    return result;
  };

  // Functions that configure a frontend run here too.
  const { configure } = application;
  application.configure = function (...args) {
    const [, only] = args;
    if (args.length === 3 && types.some((type) => only.split('|').includes(type))) {
      args[1] = 'all';
    }
    return configure.apply(this, args);
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
