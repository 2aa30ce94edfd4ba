// A cron of the connector: notes its first run in each server.
'use strict';

const { log } = require('../../../log');

exports.default = (app) => ({
  tick() {
    const line = `first tick of ${app.getServerId()}`;
    if (!log.includes(line)) {
      log.push(line);
    }
  },
});
