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

  /**
   * Returns one line for each note.
   *
   * @param {Object<string, string>} names other names of kinds
   */
  lines(names = {}) {
    return Object.entries(this.lists).flatMap(([kind, texts]) => {
      const name = names[kind] || kind;
      return texts.map((text) => `${name.padEnd(8)} ${text}`);
    });
  }

  /** Returns the lines for the report: they are the same after each run. */
  report() {
    return this.lines().filter((line) => !line.startsWith('seen'));
  }
}

module.exports = { Notes };
