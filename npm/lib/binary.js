'use strict';
// The program `tangelo`.

const fs = require('fs');
const path = require('path');

/** Returns the path of the binary: TANGELO_BIN, else the first one on PATH. Throws an error for people. */
function findBinary(env = process.env) {
  if (env.TANGELO_BIN) {
    if (isProgram(env.TANGELO_BIN)) return path.resolve(env.TANGELO_BIN);
    const reason = isFolder(env.TANGELO_BIN) ? 'is a folder; name the program in it' : 'there is no program of this name';
    throw new Error(`TANGELO_BIN = ${env.TANGELO_BIN}: ${reason}`);
  }
  const folders = (env.PATH || '').split(path.delimiter).filter(Boolean);
  const files = folders.map((folder) => path.join(folder, 'tangelo'));
  const found = files.find((file) => isProgram(file) && !isScript(file));
  if (found) return found;
  throw new Error('found no binary: put tangelo into a folder of PATH, or name it with TANGELO_BIN');
}

function isProgram(file) {
  try {
    fs.accessSync(file, fs.constants.X_OK);
    return fs.statSync(file).isFile();
  } catch {
    return false;
  }
}

function isFolder(file) {
  return fs.existsSync(file) && fs.statSync(file).isDirectory();
}

/** A script on PATH is the command of this package: npm and npx put it there under the same name. */
function isScript(file) {
  const start = Buffer.alloc(2);
  const open = fs.openSync(file, 'r');
  try {
    fs.readSync(open, start);
  } finally {
    fs.closeSync(open);
  }
  return start.toString() === '#!';
}

module.exports = { findBinary };
