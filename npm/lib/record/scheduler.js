'use strict';
// The push scheduler of an application.

/**
 * Returns the kind of each scheduler.
 *
 * @returns {{schedulers: {id?: string, kind: string, interval?: number}[], selector: boolean}}
 */
function scheduler(app, framework) {
  const config = app.get('schedulerConfig') || app.get('pushSchedulerConfig') || {};
  const kinds = framework.pushSchedulers;
  const kind = (made) => Object.keys(kinds).find((name) => kinds[name] === made) || 'own';
  const { scheduler: made } = config;
  if (!Array.isArray(made)) {
    return {
      schedulers: made ? [{ kind: kind(made), interval: config.flushInterval }] : [],
      selector: false,
    };
  }
  const schedulers = made.map((one) => {
    const interval = one.options && one.options.flushInterval;
    return { id: one.id, kind: kind(one.scheduler), interval };
  });
  return { schedulers, selector: typeof config.selector === 'function' };
}

module.exports = { scheduler };
