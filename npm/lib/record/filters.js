'use strict';
// The filters of an application → their names and values.

const BUILT_IN = ['serial', 'time', 'timeout', 'toobusy'];

/** Returns local and global filters in the order in which they run before a handler. */
function filters(app, framework, places) {
  const list = (name) => app.get(name) || [];
  const all = (before, after) => [...new Set([...list(before), ...list(after)])];
  const one = (filter) => ({ ...builtIn(filter, framework), place: places.filters.get(filter) });
  return {
    local: all('__befores__', '__afters__').map(one),
    global: all('__globalBefores__', '__globalAfters__').map(one),
    rpc: all('__rpcBefores__', '__rpcAfters__').length,
  };
}

/** Returns the name and the values of a filter of the framework, else the name of its class. */
function builtIn(filter, framework) {
  const parent = Object.getPrototypeOf(filter);
  const known = BUILT_IN.filter((name) => framework.filters[name]);
  const kind = known.find((name) => prototypeOf(framework.filters[name]) === parent);
  const { timeout, maxSize, timeOutResponse } = filter;
  if (kind) return { kind, timeout, maxSize, answers: timeOutResponse !== undefined };
  return { name: filter.name || (parent && parent.constructor.name) || 'filter' };
}

/** Pomelo exports a function that makes a filter, Pinus a class; both make it when called with `new`. */
function prototypeOf(make) {
  return Object.getPrototypeOf(new make());
}

module.exports = { filters };
