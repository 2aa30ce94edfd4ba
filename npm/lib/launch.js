'use strict';
// Runs the binary as a child: signals go to it, and its end becomes the end of this process.

const { spawn } = require('child_process');
const { findBinary } = require('./binary');

const PASSED_ON = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2'];

/** Runs the binary with these arguments. This process ends as the binary ends. */
function launch(args) {
  let binary;
  try {
    binary = findBinary();
  } catch (error) {
    refuse(error);
  }
  const child = spawn(binary, args, {
    // The log goes where that of the framework goes. In development a master takes each line on stderr for an error, and
    // a line that comes while it restarts a server ends the master.
    stdio: ['inherit', 'inherit', 1],
    // A group of its own: Ctrl-C in a terminal reaches it once, through this process. A second SIGINT
    // would end it at once.
    detached: true,
    // The binary stops when this process is gone, also after SIGKILL.
    env: { ...process.env, TANGELO_LAUNCHER: String(process.pid) },
  });
  child.on('error', refuse);
  for (const signal of PASSED_ON) {
    process.on(signal, () => child.kill(signal));
  }
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

function refuse(error) {
  console.error(`tangelo: ${error.message}`);
  process.exit(2);
}

module.exports = { launch };
