'use strict';
// Filters. Those of all messages run in tangelo; those of the frontend's own messages run in the delegate.

const { duration } = require('../toml');

function filters(toml, { type, record }, notes) {
  const { local, global, rpc } = record.filters;
  const known = global.filter((filter) => filter.kind);
  if (known.length > 0) {
    toml.set('filter.global', known.map(text), known.map((filter) => filter.place).join(', '));
  }
  for (const filter of known) {
    if (filter.answers) {
      notes.ask('a late message gets code 500 and no timeOutResponse of the project', filter.place);
    }
    if (filter.kind === 'toobusy') {
      notes.decided(`${filter.place}: filter.global has toobusy with 70ms`, 'the filter does not show its own value');
    }
  }
  for (const filter of global.filter((one) => !one.kind)) {
    notes.ask(
      `the global filter ${filter.name} runs for the messages of ${type} in the delegate, but not for messages `
        + 'to other servers; with route.default = "delegate" it runs for these too, and each takes one hop more',
      filter.place,
    );
  }
  for (const filter of local) {
    notes.done(`${filter.place}: the filter ${filter.kind || filter.name} runs in the delegate`);
  }
  if (rpc > 0) notes.done(`${rpc} filters of calls run in the servers that make calls`);
}

/** Returns a filter as `filter.global` names it. */
function text({ kind, timeout, maxSize }) {
  if (kind === 'serial' && timeout) return `serial ${duration(timeout)}`;
  if (kind === 'timeout') return `timeout ${duration(timeout)} ${maxSize}`;
  return kind;
}

module.exports = { filters };
