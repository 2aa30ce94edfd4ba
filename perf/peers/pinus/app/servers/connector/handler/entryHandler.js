// The message with the two members that the load sends, as the Pomelo application does it.
'use strict';

exports.default = () => new Handler();

class Handler {
  async echo(msg) {
    return { n: msg.n, text: msg.text };
  }
}
