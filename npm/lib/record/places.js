'use strict';
// Places in the project: file and line of a call or an error.

const path = require('path');

/**
 * Returns `file:line` of the first line of a stack that is in the project; undefined without one.
 *
 * @param {Error} error
 * @param {string} root folder of the project
 */
function placeOf(error, root) {
  const lines = String(error && error.stack).split('\n');
  for (const line of lines) {
    const found = /(?:^(?:at )?|\()((?:file:\/\/)?\/.+?):(\d+)(?::\d+)?\)?$/.exec(line.trim());
    if (!found) continue;
    const file = found[1].replace('file://', '');
    const inside = path.relative(root, file);
    if (!/^\.\.|node_modules/.test(inside)) return `${inside}:${found[2]}`;
  }
  return undefined;
}

/** Returns the place that calls the function which calls this one. */
function callerPlace(root) {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 50;
  const place = placeOf(new Error(), root);
  Error.stackTraceLimit = limit;
  return place;
}

function firstLine(error) {
  return String((error && error.message) || error).split('\n')[0];
}

module.exports = { callerPlace, firstLine, placeOf };
