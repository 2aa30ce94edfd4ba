'use strict';
// Values of a configuration → JSON. A function becomes `{function: name}` and an object with a class of its
// own `{object: name}`.

const DEPTH_MAX = 6;

function describe(value, depth = 0) {
  if (typeof value === 'function') return { function: value.name };
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map((item) => describe(item, depth + 1));
  const parent = Object.getPrototypeOf(value);
  const isPlain = parent === null || parent.constructor.name === 'Object';
  if (!isPlain || depth > DEPTH_MAX) return { object: parent ? parent.constructor.name : 'Object' };
  const members = Object.entries(value).map(([key, member]) => [key, describe(member, depth + 1)]);
  return Object.fromEntries(members);
}

module.exports = { describe };
