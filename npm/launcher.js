'use strict';
// Runs the binary in the place of a server's main script. The `args` of the server's entry in servers.json name this
// file, and a master starts it in one of two ways:
//
//   node --require=tangelo/launcher app.js env=development id=connector-1 …
//   node node_modules/tangelo/launcher.js app.js env=development id=connector-1 …
//
// The first one finds the file from any folder of the project. The second one is for `pomelo add`, where a word has
// only one `=`. Both are one word, because masters keep no list intact when they restart a server.

const Module = require('module');
const { launch } = require('./lib/launch');
const { commandLine } = require('./lib/commandLine');

const run = (argv) => launch(commandLine(argv, process.env.NODE_ENV));

if (require.main === module) {
  run(process.argv.slice(2));
} else {
  // Node calls this function to run the main script.
  Module.runMain = () => run(process.argv.slice(1));
}
