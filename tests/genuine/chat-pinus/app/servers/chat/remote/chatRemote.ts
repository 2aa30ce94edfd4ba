// The members of each room. A uid is name*room.
import { Application } from 'pinus';

export default (app: Application) => new Remote(app);

const nameOf = (uid: string) => uid.split('*')[0];

export class Remote {
  constructor(private app: Application) {}

  // The names of all who are in, the new one too. A room that is not there is made with `create`.
  async add(uid: string, frontendId: string, room: string, create: boolean) {
    const channel = this.app.get('channelService').getChannel(room, create);
    if (!channel) {
      return [];
    }
    channel.pushMessage('onAdd', { user: nameOf(uid) });
    channel.add(uid, frontendId);
    return channel.getMembers().map(nameOf);
  }

  async kick(uid: string, frontendId: string, room: string) {
    const channel = this.app.get('channelService').getChannel(room, false);
    if (channel) {
      channel.leave(uid, frontendId);
      channel.pushMessage('onLeave', { user: nameOf(uid) });
    }
  }
}
