'use strict';
// The files that `init` writes.

const fs = require('fs');
const path = require('path');
const { createHash } = require('crypto');

/** A line of a file of our own that tells whether a person has changed the rest. */
const MARK = '# init writes this file again while nobody has changed it: ';

class Changes {
  /** @param {{write: boolean, check: boolean}} options */
  constructor({ write, check }) {
    this.write = write;
    this.check = check;
    /** Names of the files that are, or would be, written. */
    this.files = new Set();
    /** Whether the project still differs from what `--write` makes of it. */
    this.areLeft = false;
  }

  /** Writes a file of our own. Never over one that a person has changed: the text then goes into `FILE.new`. */
  own(file, text) {
    const marked = `${MARK}${hash(text)}\n${text}`;
    const now = read(file);
    if (now === marked) return;
    this.put(now === undefined || isUnchanged(now) ? file : `${file}.new`, marked);
  }

  /** Writes a report or another file that nobody changes. */
  plain(file, text) {
    this.put(file, text);
  }

  /** Changes a file of the project, and keeps a copy of the original; without `--write` only a copy changes. */
  original(file, text) {
    if (this.check || read(file) === text) {
      this.put(file, text);
      return;
    }
    const changed = `${file}.tangelo`;
    if (!this.write) {
      this.areLeft = true;
      this.put(changed, text);
      return;
    }
    const copy = `${file}.orig`;
    if (!fs.existsSync(copy)) fs.copyFileSync(file, copy);
    fs.rmSync(changed, { force: true });
    this.put(file, text);
  }

  /** Writes a file that is not the same already, or only notes it. */
  put(file, text) {
    if (read(file) === text) return;
    this.files.add(file);
    if (this.check) {
      this.areLeft = true;
      return;
    }
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, text);
  }
}

function read(file) {
  return fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : undefined;
}

function isUnchanged(text) {
  const [first, ...rest] = text.split('\n');
  return first === MARK + hash(rest.join('\n'));
}

function hash(text) {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

module.exports = { Changes };
