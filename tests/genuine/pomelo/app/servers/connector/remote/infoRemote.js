// Remotes of a frontend that backends call. A backend makes its stubs from this file too.
'use strict';

module.exports = (app) => new Remote(app);

function Remote(app) {
  this.app = app;
}

Remote.prototype.who = function (name, cb) {
  cb(null, { name, by: this.app.getServerId() });
};

Remote.prototype.later = function (value, cb) {
  setTimeout(() => cb(null, value), 20);
};

Remote.prototype.nothing = function (cb) {
  cb();
};

Remote.prototype.several = function (cb) {
  cb(null, 1, null, { x: 2 });
};

Remote.prototype.fail = function (text, cb) {
  cb(new Error(text));
};

Remote.prototype.boom = function (cb) {
  throw new Error('boom');
};

Remote.prototype.add = function (a, b, cb) {
  this.app.rpc.chat.chatRemote.add(null, a, b, cb);
};

// Only here, so that backends have a stub of it.
Remote.prototype.unknown = function (cb) {
  cb();
};
