#!/usr/bin/env node
'use strict';
// Runs the binary with these arguments.

require('../lib/launch').launch(process.argv.slice(2));
