// Chat messages of a room, and their receivers.
import { Application, BackendSession } from 'pinus';

export default (app: Application) => new Handler(app);

export class Handler {
  constructor(private app: Application) {}

  // `target` is `*` for everybody in the room, or one name. The answer says where the room is.
  async send(m: any, session: BackendSession) {
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
        return { code: 404 };
      }
      service.pushMessageByUids('onChat', said, [listener]);
    }
    return { room, by: this.app.getServerId() };
  }
}
