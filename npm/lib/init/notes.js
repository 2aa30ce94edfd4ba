'use strict';
// The notes of `init` for a person, of four kinds: done, decided and why, to be decided by the person, and seen.

class Notes {
  constructor() {
    this.lists = { done: [], decided: [], ask: [], seen: [] };
  }

  done(text) {
    this.add('done', text);
  }

  /** @param {string} why the reason */
  decided(text, why) {
    this.add('decided', `${text}: ${why}`);
  }

  /** @param {string} [place] `file:line` in the project */
  ask(text, place) {
    this.add('ask', place ? `${place}: ${text}` : text);
  }

  /** A note for the screen only: the next run may see something else. */
  seen(text) {
    this.add('seen', text);
  }

  add(kind, text) {
    if (!this.lists[kind].includes(text)) this.lists[kind].push(text);
  }

  /** Returns one line for each note of these kinds. */
  lines(kinds = Object.keys(this.lists)) {
    return kinds.flatMap((kind) => this.lists[kind].map((text) => `${kind.padEnd(8)} ${text}`));
  }
}

module.exports = { Notes };
