// The members of each room. A uid is name*room.
'use strict';

module.exports = (app) => new Remote(app);

function Remote(app) {
  this.app = app;
}

const nameOf = (uid) => uid.split('*')[0];

// The names of all who are in, the new one too. A room that is not there is made with `create`.
Remote.prototype.add = function (uid, frontendId, room, create, cb) {
  const channel = this.app.get('channelService').getChannel(room, create);
  if (!channel) {
    return cb(null, []);
  }
  channel.pushMessage('onAdd', { user: nameOf(uid) });
  channel.add(uid, frontendId);
  cb(null, channel.getMembers().map(nameOf));
};

Remote.prototype.kick = function (uid, frontendId, room, cb) {
  const channel = this.app.get('channelService').getChannel(room, false);
  if (channel) {
    channel.leave(uid, frontendId);
    channel.pushMessage('onLeave', { user: nameOf(uid) });
  }
  cb();
};
