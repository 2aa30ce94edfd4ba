// Chat messages of a room, and their receivers.
'use strict';

module.exports = (app) => new Handler(app);

function Handler(app) {
  this.app = app;
}

// `target` is `*` for everybody in the room, or one name. The answer says where the room is.
Handler.prototype.send = function (m, session, next) {
  const service = this.app.get('channelService');
  const room = session.get('rid');
  const channel = service.getChannel(room, false);
  const from = session.uid.split('*')[0];
  const said = { from, msg: m.content, target: m.target };
  if (m.target === '*') {
    channel.pushMessage('onChat', said);
  } else {
    const listener = channel.getMember(m.target + '*' + room);
    if (!listener) {
      return next(null, { code: 404 });
    }
    service.pushMessageByUids('onChat', said, [listener]);
  }
  next(null, { room, by: this.app.getServerId() });
};

// The servers that this server knows; the harness asks for them.
Handler.prototype.servers = function (m, session, next) {
  next(null, { ids: Object.keys(this.app.getServers()) });
};
