// The chat of tests/genuine/chat for Pinus, in TypeScript.
import { pinus } from 'pinus';
import { preload } from './preload';

preload();

const { crc32 } = require('crc');

// For messages and for calls alike.
const byRoom = (session, msg, app, cb) => {
  const room = session.get('rid');
  const servers = app.getServersByType('chat');
  if (!room || servers.length === 0) {
    return cb(new Error('no room, or nobody who has it'));
  }
  cb(null, servers[Math.abs(crc32(room)) % servers.length].id);
};

const app = pinus.createApp();
app.set('name', 'tangelo-chat');

app.configure('production|development', 'connector', () => {
  app.set('connectorConfig', {
    connector: pinus.connectors.hybridconnector,
    heartbeat: 30,
    useDict: true,
    useProtobuf: true,
  });
  app.route('chat', byRoom);
});

app.start();
