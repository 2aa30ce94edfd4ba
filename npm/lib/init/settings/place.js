'use strict';

/** Returns `file:line` of a call such as `set connectorConfig`; the name of the script if that is unknown. */
function placeOf(record, call) {
  return record.places[call] || 'app.js';
}

module.exports = { placeOf };
