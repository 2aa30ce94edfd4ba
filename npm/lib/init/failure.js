'use strict';

/** An error whose message is all that a person needs, in one line. */
class Failure extends Error {}

module.exports = { Failure };
