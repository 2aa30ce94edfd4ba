// Filters and error handlers of the servers that have some, and the logs that they write.
'use strict';

const pomelo = require('pomelo');

// The logs of messages that ask for one: `log` is the name of the log.
const logs = new Map();

const write = (body, line) => {
  if (body && typeof body.log === 'string') {
    logs.set(body.log, (logs.get(body.log) || []).concat(line));
  }
};

const stopped = (name, stop) => [new Error(stop + ' stop'), { from: stop }];

// Writes its name, and stops a message whose `stop` is as given.
const before = (name, stop, body, next) => {
  write(body, name);
  if (stop && body.stop === stop) {
    next(...stopped(name, stop));
  } else {
    next();
  }
};

// Writes its name and the error that it sees. A1 changes that.
const after = (name, err, body, next) => {
  write(body, err ? name + ' err ' + (err.message || err) : name + ' ok');
  if (name === 'A1' && body.afterErr) {
    err = new Error('from after');
  } else if (name === 'A1' && body.afterClear) {
    err = null;
  }
  next(err);
};

// A global filter gets the whole message, another one its body.
const globalBefore = (name, stop) => (msg, session, next) => before(name, stop, msg.body, next);
const globalAfter = (name) => (err, msg, session, resp, next) => after(name, err, msg.body, next);
const localBefore = (name, stop) => (m, session, next) => before(name, stop, m, next);
const localAfter = (name) => (err, m, session, resp, next) => after(name, err, m, next);

const byServer = {
  'c-tmo': (app) => {
    app.filter(pomelo.filters.serial(300));
    app.filter(pomelo.filters.time());
    app.filter(pomelo.filters.timeout(200, 2));
  },
  'c-filter': (app) => {
    app.set('serverConfig', { enableForwardLog: true });
    app.globalBefore(globalBefore('GB1', 'gb'));
    app.globalBefore(globalBefore('GB2'));
    app.globalAfter(globalAfter('GA1'));
    app.globalAfter(globalAfter('GA2'));
    app.before(localBefore('B1', 'b'));
    app.before(localBefore('B2'));
    app.after(localAfter('A1'));
    app.after(localAfter('A2'));
    app.filter({ before: localBefore('F3'), after: localAfter('F3') });
  },
  'c-err': (app) => {
    app.globalBefore(globalBefore('GB1', 'gb'));
    app.set('errorHandler', (err, msg, resp, session, next) => {
      next(err, { code: 501, eh: err.message, prev: resp });
    });
    app.set('globalErrorHandler', (err, msg, resp, session, next) => {
      next(null, { geh: err.message, prev: resp });
    });
  },
};

const filters = (app, id) => (byServer[id] || (() => {}))(app);

module.exports = { filters, logs, write };
