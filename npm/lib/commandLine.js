'use strict';
// The command line of the binary for a server that a master starts.

const fs = require('fs');
const path = require('path');
const { FOLDER, settingsFile, settingsName } = require('./settingsFile');

/**
 * Returns the arguments of the binary: the master's words, and the settings that `tangelo init` wrote.
 *
 * @param {string[]} argv main script and key=value words, as Node gives them
 * @param {string} [nodeEnv] the variable NODE_ENV, which counts without a word `env=`
 */
function commandLine([script, ...words], nodeEnv) {
  const main = mainScript(script);
  const value = (key) => {
    const word = words.find((it) => it.startsWith(`${key}=`));
    return word && word.slice(key.length + 1);
  };
  const env = value('env') || nodeEnv || 'development';
  const type = value('serverType');
  const file = settingsFile(path.dirname(main), type, env);
  if (!file) {
    const wanted = path.join(path.dirname(main), 'config', FOLDER, settingsName(type));
    console.log(`tangelo: there is no ${wanted}, so all settings have their defaults; run npx tangelo init --write`);
  }
  const config = file ? ['--config', file] : [];
  return [...config, '--', main, ...words];
}

/** Returns the file that Node would run: `dist/app` may mean dist/app.js beside a folder dist/app. */
function mainScript(script) {
  try {
    return fs.realpathSync(require.resolve(path.resolve(script)));
  } catch {
    return path.resolve(script);
  }
}

module.exports = { commandLine };
