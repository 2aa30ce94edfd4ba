// A server of calls by one of pomelo-rpc's other acceptors, as a project's app.js may choose it:
//   node other_rpc.js ws2 6050
'use strict';

// As the stock template does; without it bytes of another RPC end the whole server.
process.on('uncaughtException', (err) => console.error('uncaught exception: ' + err.stack));

const [acceptor, port] = process.argv.slice(2);
const { create } = require('pomelo-rpc/lib/rpc-server/acceptors/' + acceptor + '-acceptor');

const server = create({ services: {} }, () => {});
server.on('error', (err) => { throw err; });
server.listen(Number(port));
// The others listen a moment after this.
setTimeout(() => console.log(acceptor + ' listens'), 500);
