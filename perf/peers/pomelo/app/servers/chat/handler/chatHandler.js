// The message with the two members that the load sends; Pomelo has added a third.
'use strict';

module.exports = () => new Handler();

class Handler {}

// On the prototype, where Pomelo looks for methods.
Handler.prototype.echo = (msg, session, next) => next(null, { n: msg.n, text: msg.text });
