// One server of a cluster whose connector has its own handlers, filters and remotes. Nothing here knows of a delegate:
// a genuine connector and a delegate run the same files.
'use strict';

const path = require('path');
const pomelo = require('pomelo');
const { log } = require('./app/log');
const { blacklistFun, checkClient, handshake } = require('./app/questions');

process.on('uncaughtException', (err) => {
  console.error('uncaught exception: ' + err.stack);
});

const app = pomelo.createApp();
app.set('name', 'tangelo-delegate');

app.configure('development', 'connector', () => {
  // The component gets its own, and not what is set.
  app.set('connectorConfig', { connector: pomelo.connectors.mqttconnector, checkClient: () => false });
  app.load(pomelo.connector, {
    connector: pomelo.connectors.hybridconnector,
    useHostFilter: true,
    blacklistFun,
    checkClient,
    handshake,
  });
  app.set('greeting', 'hello');
  app.filter({
    before(m, session, next) {
      m.filters = ['local'];
      next(m.refuse ? new Error('refused') : null);
    },
    after(err, m, session, resp, next) {
      log.push(`after ${m.__route__}`);
      next(err);
    },
  });
  app.globalFilter({
    before(message, session, next) {
      message.body.global = true;
      next();
    },
    after(err, message, session, resp, next) {
      next(err);
    },
  });
  const plugin = path.join(__dirname, 'app/presence');
  app.use({ components: path.join(plugin, 'components'), events: path.join(plugin, 'events') }, { presence: { sign: '!' } });
});

// Another type has its own; here nobody is asked for it.
app.configure('development', 'entry', () => {
  app.set('connectorConfig', { checkClient: () => false, blacklistFun: (cb) => cb(null, ['.']) });
});

// No strategy of tangelo can say this.
app.route('chat', (session, call, theApp, cb) => {
  const [message] = call.args;
  const servers = theApp.getServersByType('chat');
  const { to } = (message && message.body) || {};
  const { lane } = Object(session.get('room'));
  if (lane !== undefined) {
    log.push(`route of ${session.uid || session.get('name')}`);
    cb(null, servers[lane % servers.length].id);
    return;
  }
  cb(null, servers[(to || 0) % servers.length].id);
});

app.start((err) => {
  if (err) {
    console.error('server does not start: ' + (err.stack || err));
    process.exit(1);
  }
  console.log('peer ' + app.getServerId() + ' is up');
});
