'use strict';
// Push schedulers, and the filter of broadcasts.

const { duration } = require('../toml');
const { placeOf } = require('./place');

function push(toml, { record }, notes) {
  const { schedulers, selector } = record.scheduler;
  const { pushSchedulerConfig, schedulerConfig, channelConfig = {} } = record.settings;
  const name = schedulerConfig ? 'schedulerConfig' : 'pushSchedulerConfig';
  const place = placeOf(record, `set ${name}`);
  if (schedulerConfig || pushSchedulerConfig) {
    for (const one of schedulers.filter(({ kind }) => kind === 'own')) {
      notes.ask(`the scheduler ${one.id || ''} is the project's own; tangelo has direct and buffer`, place);
    }
    const known = schedulers.filter(({ kind }) => kind !== 'own');
    const [first, ...more] = known;
    if (first) {
      toml.set('push.scheduler', first.kind, `${place}: ${name}`);
      if (first.interval) toml.set('push.flush_interval', duration(first.interval));
    }
    for (const { id, kind, interval } of more) {
      const members = { id, scheduler: kind };
      toml.table('push.schedulers', interval ? { ...members, flush_interval: duration(interval) } : members);
    }
    if (selector) {
      notes.ask(
        `the selector of ${name} is JavaScript: write its rules into push.select; the scheduler `
          + `${first && first.id} has the id default there`,
        place,
      );
    }
  }
  if (channelConfig.broadcastFilter) {
    notes.ask(
      'channelConfig.broadcastFilter is not asked: each broadcast goes to all; Router::broadcast_filter in Rust '
        + 'can take its place',
      placeOf(record, 'set channelConfig'),
    );
  }
}

module.exports = { push };
