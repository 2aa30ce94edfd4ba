// Changes the blacklist of the connector.
'use strict';

const { state } = require('../../../questions');

module.exports = () => ({
  set(m, session, next) {
    Object.assign(state, m);
    next(null, { code: 200 });
  },
});
