'use strict';
// A tangelo.toml in the making.

/** The order of the sections; '' are the keys at the top. */
const SECTIONS = ['', 'route', 'client', 'filter', 'session', 'push', 'rpc', 'cluster', 'log', 'tls'];

class Toml {
  constructor() {
    this.lines = new Map(SECTIONS.map((section) => [section, []]));
    this.tables = [];
  }

  /**
   * Adds a key, such as `client.heartbeat`. The comment says where the value comes from.
   *
   * @param {string} name
   * @param {string | number | boolean | string[]} value
   * @param {string} [comment]
   */
  set(name, value, comment) {
    const [, section = '', key] = /^(?:([^.]+)\.)?(.+)$/.exec(name);
    const line = `${bare(key)} = ${literal(value)}`;
    this.lines.get(section).push(...(comment ? [`# ${comment}`] : []), line);
  }

  /** Adds one table of a list, such as `push.schedulers`. */
  table(name, members) {
    const lines = Object.entries(members).map(([key, value]) => `${key} = ${literal(value)}`);
    this.tables.push(`[[${name}]]`, ...lines, '');
  }

  toString() {
    const parts = [...this.lines].filter(([, lines]) => lines.length > 0).map(([section, lines]) => {
      const head = section ? [`[${section}]`] : [];
      return [...head, ...lines, ''];
    });
    return [...parts.flat(), ...this.tables].join('\n');
  }
}

function bare(key) {
  return /^[A-Za-z0-9_-]+$/.test(key) ? key : JSON.stringify(key);
}

function literal(value) {
  if (!Array.isArray(value)) return JSON.stringify(value);
  if (value.length < 2) return JSON.stringify(value);
  return `[\n${value.map((item) => `    ${JSON.stringify(item)},\n`).join('')}]`;
}

/** Returns a time in milliseconds as tangelo reads it: `3s` or `20ms`. */
function duration(ms) {
  return ms % 1000 === 0 ? `${ms / 1000}s` : `${ms}ms`;
}

module.exports = { Toml, duration };
