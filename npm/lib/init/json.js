'use strict';
// JSON as people write servers.json: each server on a line of its own.

const INDENT = '  ';

/** Returns the text of a value. Lists have one line for each item, and so have objects that hold lists or objects. */
function print(value, indent = '') {
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  const inner = indent + INDENT;
  const isList = Array.isArray(value);
  const members = isList
    ? value.map((item) => oneLine(item))
    : Object.entries(value).map(([key, member]) => `${JSON.stringify(key)}: ${print(member, inner)}`);
  const [open, close] = isList ? '[]' : '{}';
  if (members.length === 0) return open + close;
  return `${open}\n${inner}${members.join(`,\n${inner}`)}\n${indent}${close}`;
}

function oneLine(value) {
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(oneLine).join(', ')}]`;
  const members = Object.entries(value).map(([key, member]) => `${JSON.stringify(key)}: ${oneLine(member)}`);
  return `{${members.join(', ')}}`;
}

module.exports = { print };
