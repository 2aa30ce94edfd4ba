// Prints the servers that a framework reads from the files of a project:
//   node servers.js pinus /srv/game env=production
'use strict';

const [name, base] = process.argv.slice(2);
const framework = require(name);
const app = (framework.pinus || framework).createApp({ base });
console.log('servers ' + JSON.stringify(app.get('servers')));
process.exit(0);
