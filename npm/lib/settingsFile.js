'use strict';
// The place of a frontend's settings. `init` writes them and the launcher reads them.

const fs = require('fs');
const path = require('path');

/** The folder inside `config` that has all files of tangelo. */
const FOLDER = 'tangelo';

/** Returns the name of the file for a type in one environment, or in all without `env`. */
function settingsName(type, env) {
  return env ? `${type}.${env}.toml` : `${type}.toml`;
}

/**
 * Returns the settings of a type for this environment, else those for all; undefined without a file.
 *
 * @param {string} base folder of the main script
 */
function settingsFile(base, type, env) {
  const names = [settingsName(type, env), settingsName(type)];
  const files = names.map((name) => path.join(base, 'config', FOLDER, name));
  return files.find((file) => fs.existsSync(file));
}

module.exports = { FOLDER, settingsFile, settingsName };
