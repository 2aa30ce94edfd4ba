// Remotes of a connector that backends call.
'use strict';

module.exports = (app) => new Remote(app);

function Remote(app) {
  this.app = app;
}

Remote.prototype.where = function (cb) {
  cb(null, [this.app.getServerId(), this.app.getServerType(), this.app.isFrontend()]);
};

Remote.prototype.kick = function (uid, cb) {
  const service = this.app.get('sessionService');
  const sessions = service.getByUid(uid) || [];
  service.kick(uid, 'by a remote', () => cb(null, sessions.length));
};

Remote.prototype.fail = function (text, cb) {
  cb(new Error(text));
};

Remote.prototype.boom = function (cb) {
  throw new Error('boom');
};

Remote.prototype.several = function (cb) {
  cb(null, 1, null, { x: 'é' });
};
