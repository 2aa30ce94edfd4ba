'use strict';
// Runs a project's main script, as a master runs it for one frontend, and returns what it configures.

const fs = require('fs');
const os = require('os');
const path = require('path');
const { spawnSync } = require('child_process');
const { Failure } = require('./failure');

const TIMEOUT_MS = 20_000;
const PRELOAD = path.join(__dirname, '../record/preload.js');

/**
 * Returns the record of a server. Throws a Failure.
 *
 * @param {import('./project').Project} project
 * @param {string[]} words key=value words of the server
 * @returns {import('../record/collect').Record}
 */
function record(project, words) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tangelo-init-'));
  try {
    const file = path.join(folder, 'record.json');
    const { base, root, main, name, framework, lib } = project;
    const task = { file, base, root, name, framework, lib };
    const args = ['--enable-source-maps', '--require', PRELOAD, main, ...words];
    const { status, error } = spawnSync(process.execPath, args, {
      cwd: base,
      stdio: 'ignore',
      timeout: TIMEOUT_MS,
      killSignal: 'SIGKILL',
      // The framework makes no log files then.
      env: { ...process.env, POMELO_LOGGER: 'off', TANGELO_RECORD: JSON.stringify(task) },
    });
    if (fs.existsSync(file)) return checked(JSON.parse(fs.readFileSync(file, 'utf8')), main);
    throw new Failure(`${main}: ${reason(status, error)}`);
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

function checked(result, main) {
  if (result.error === undefined) return result;
  const place = result.place ? ` (${result.place})` : '';
  throw new Failure(`${main}: throws: ${result.error}${place}`);
}

function reason(status, error) {
  if (error && error.code === 'ETIMEDOUT') return 'does not call app.start within 20 s';
  return `ends with status ${status} before it calls app.start`;
}

module.exports = { record };
