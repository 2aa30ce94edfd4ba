// Functions around the start of the connector.
'use strict';

const { log } = require('../../log');

exports.beforeStartup = (app, cb) => {
  log.push('lifecycle: before the start');
  cb();
};

exports.afterStartup = (app, cb) => {
  log.push('lifecycle: after the start');
  cb();
};
