// A component that keeps what the events of the plugin tell it.
'use strict';

const { log } = require('../../log');

module.exports = (app, { sign }) => {
  app.set('presence', { note: (event, { uid, frontendId }) => log.push(`${event} ${uid} at ${frontendId}${sign}`) }, true);
  return { name: 'presence' };
};
