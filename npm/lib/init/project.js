'use strict';
// A Pomelo or Pinus project on disk.

const fs = require('fs');
const path = require('path');
const { createRequire } = require('module');
const { Failure } = require('./failure');

/** Places of a main script in a folder that a person names: that of `pomelo init` has a folder game-server. */
const MAIN_SCRIPTS = ['app.js', 'dist/app.js', 'game-server/app.js', 'game-server/dist/app.js'];

/** Folders of the files of a framework in its package. */
const LIBRARIES = { pomelo: 'lib', pinus: 'dist/lib' };

/**
 * @typedef {object} Project
 * @property {string} main main script
 * @property {string} base folder of the main script, from which the framework reads `config` and `app`
 * @property {string} root folder of the sources: that of package.json; the same as `base` without a build
 * @property {'pomelo' | 'pinus'} name name of the framework
 * @property {string} version version of the framework
 * @property {string} framework main file of the framework
 * @property {string} lib folder of the framework's files
 */

/** Finds the project in a folder. Throws a Failure. */
function findProject(folder) {
  const dir = path.resolve(folder);
  const main = MAIN_SCRIPTS.map((name) => path.resolve(dir, name)).find(isFile);
  if (!main) {
    if (['app.ts', 'game-server/app.ts'].some((name) => isFile(path.join(dir, name)))) {
      throw new Failure(`${dir}: app.ts is not built yet; run the project's build, such as npm run build`);
    }
    throw new Failure(`${dir}: is no project: there is none of ${MAIN_SCRIPTS.join(', ')}`);
  }
  const base = path.dirname(main);
  const root = path.basename(base) === 'dist' ? path.dirname(base) : base;
  return { main, base, root, ...findFramework(main, root, dir) };
}

function findFramework(main, root, dir) {
  const { resolve } = createRequire(main);
  for (const [name, folder] of Object.entries(LIBRARIES)) {
    try {
      const file = resolve(`${name}/package.json`);
      const { version } = JSON.parse(fs.readFileSync(file, 'utf8'));
      return { name, version, framework: resolve(name), lib: path.join(path.dirname(file), folder) };
    } catch {
      // The other one, or none.
    }
  }
  const wanted = Object.keys(LIBRARIES).find((name) => name in dependencies(root));
  if (wanted) throw new Failure(`${dir}: ${wanted} is not installed; run npm install in ${root}`);
  throw new Failure(`${dir}: is no project: ${main} has neither pomelo nor pinus installed`);
}

/** Tells whether Node finds this package from the folder where a master starts its servers. */
function isInstalled({ main }) {
  try {
    createRequire(main).resolve('tangelo/launcher');
    return true;
  } catch {
    return false;
  }
}

function dependencies(root) {
  try {
    return JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')).dependencies || {};
  } catch {
    return {};
  }
}

function isFile(file) {
  return fs.existsSync(file) && fs.statSync(file).isFile();
}

module.exports = { findProject, isInstalled };
