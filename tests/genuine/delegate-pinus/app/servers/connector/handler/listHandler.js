// Changes the blacklist of the connector.
'use strict';

const { state } = require('../../../questions');

exports.default = () => ({
  async set(m) {
    Object.assign(state, m);
    return { code: 200 };
  },
});
