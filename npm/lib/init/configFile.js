'use strict';
// The files in a project's `config` folder.

const fs = require('fs');
const path = require('path');
const { spawnSync } = require('child_process');
const { Failure } = require('./failure');

const SCRIPT_TIMEOUT_MS = 20_000;

/**
 * A file of the project's configuration.
 *
 * @typedef {object} ConfigFile
 * @property {string} file path of the file that the framework reads
 * @property {any} json its content
 * @property {boolean} isScript whether it is JavaScript
 */

/**
 * Reads `config/NAME.json`, else the same in the folder of an environment, as the framework does; JavaScript in
 * their places counts too. Returns undefined without a file. Throws a Failure.
 *
 * @param {import('./project').Project} project
 * @param {string} name such as `servers`
 * @param {string} [env] environment whose folder counts too
 * @returns {ConfigFile | undefined}
 */
function readConfig(project, name, env) {
  // Pinus looks for both where the project asks for a name without ending, and takes the script then. So the
  // JSON beside a script is the one that `init` has written.
  const endings = project.name === 'pinus' ? ['.js', '.json'] : ['.json', '.js'];
  const folders = ['config', ...(env ? [path.join('config', env)] : [])];
  for (const folder of folders) {
    for (const ending of endings) {
      const file = path.join(project.base, folder, name + ending);
      const isScript = ending === '.js';
      if (fs.existsSync(file)) return { file, json: isScript ? run(file) : parse(file), isScript };
    }
  }
  return undefined;
}

function parse(file) {
  // Node skips a byte order mark too.
  const text = fs.readFileSync(file, 'utf8').replace(/^\ufeff/, '');
  try {
    return JSON.parse(text);
  } catch (error) {
    const [, position = text.length] = /at position (\d+)/.exec(error.message) || [];
    const line = text.slice(0, position).split('\n').length;
    throw new Failure(`${file}:${line}: ${error.message}`);
  }
}

/** Returns the JSON of what a script exports. The script runs in a process of its own. */
function run(file) {
  const print = 'const it = require(process.argv[1]); console.log("\\n" + JSON.stringify(it.default || it))';
  const { status, stdout, stderr } = spawnSync(process.execPath, ['-e', print, file], {
    encoding: 'utf8',
    timeout: SCRIPT_TIMEOUT_MS,
  });
  if (status === 0) return JSON.parse(stdout.trimEnd().split('\n').pop());
  const lines = (stderr || '').split('\n');
  const place = lines.find((line) => /^\/.+:\d+$/.test(line));
  const reason = lines.find((line) => /Error/.test(line));
  throw new Failure(`${place || file}: ${reason || 'cannot be loaded'}`);
}

module.exports = { readConfig };
