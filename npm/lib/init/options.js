'use strict';
// The command line of `tangelo init`.

const { Failure } = require('./failure');

const USAGE = `usage: tangelo init [DIR] [--write | --check] [--only ID[,ID]]

Reads the Pomelo or Pinus project in DIR (default: this folder) and writes what tangelo needs to take the place
of its frontends.

  (nothing)   writes new files only; changed copies of servers.json and adminServer.json get the ending .tangelo
  --write     also changes these two files; a copy of each original gets the ending .orig
  --check     writes nothing; prints what --write would change, and ends with status 1 unless that is nothing
  --only ID   only these frontends start tangelo, the others stay as they are`;

/**
 * @param {string[]} args
 * @returns {{dir: string, write: boolean, check: boolean, only?: string[], help: boolean}}
 */
function parse(args) {
  const options = { dir: '.', write: false, check: false, only: undefined, help: false };
  const dirs = [];
  const rest = [...args];
  while (rest.length > 0) {
    const word = rest.shift();
    if (word === '--write' || word === '--check' || word === '--help') {
      options[word.slice(2)] = true;
    } else if (word === '--only' && rest.length > 0) {
      options.only = rest.shift().split(',');
    } else if (word.startsWith('-') || dirs.push(word) > 1) {
      throw new Failure(`unknown word ${word}; see tangelo init --help`);
    }
  }
  if (options.write && options.check) throw new Failure('--write and --check exclude each other');
  return { ...options, dir: dirs[0] || '.' };
}

module.exports = { USAGE, parse };
