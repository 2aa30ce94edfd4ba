// Remotes that frontends call: each method is one kind of answer.
'use strict';

module.exports = (app) => new Remote(app);

function Remote(app) {
  this.app = app;
  this.lists = new Map(); // what was noted under one name, oldest first
}

Remote.prototype.add = function (a, b, cb) {
  cb(null, a + b);
};

Remote.prototype.whoami = function (cb) {
  cb(null, this.app.getServerId());
};

Remote.prototype.several = function (a, b, cb) {
  cb(null, a, b, null);
};

Remote.prototype.nothing = function (cb) {
  cb();
};

Remote.prototype.slow = function (ms, value, cb) {
  setTimeout(() => cb(null, value), ms);
};

Remote.prototype.never = function (cb) {};

Remote.prototype.errOnly = function (cb) {
  cb(new Error('remote boom'));
};

Remote.prototype.errStr = function (cb) {
  cb('just a string', 1);
};

Remote.prototype.throwErr = function (cb) {
  throw new Error('remote throw');
};

// An error on one server only.
Remote.prototype.errOn = function (id, cb) {
  const err = id === this.app.getServerId() ? new Error('boom on ' + id) : null;
  cb(err, 1);
};

Remote.prototype.note = function (name, value, cb) {
  if (!this.lists.has(name)) {
    this.lists.set(name, []);
  }
  this.lists.get(name).push(value);
  cb();
};

// Events that a frontend tells its delegate.
Remote.prototype.closed = function (session, cb) {
  this.note('closed', session, cb);
};

Remote.prototype.notes = function (name, cb) {
  cb(null, this.lists.get(name) || []);
};
