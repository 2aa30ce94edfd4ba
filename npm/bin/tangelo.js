#!/usr/bin/env node
'use strict';
// tangelo init …    moves a project; see lib/init/main.js
// tangelo …         runs the binary with these arguments

const [command, ...rest] = process.argv.slice(2);

if (command === 'init') {
  process.exitCode = require('../lib/init/main').main(rest);
} else {
  require('../lib/launch').launch(process.argv.slice(2));
}
