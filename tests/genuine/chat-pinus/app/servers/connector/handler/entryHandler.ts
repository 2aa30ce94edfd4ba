// Lets players into rooms.
import { Application, FrontendSession } from 'pinus';

export default (app: Application) => new Handler(app);

export class Handler {
  constructor(private app: Application) {}

  async enter(m: any, session: FrontendSession) {
    const { app } = this;
    const uid = m.username + '*' + m.rid;
    if (session.uid || app.get('sessionService').getByUid(uid)) {
      return { code: 500, error: true };
    }
    session.bind(uid, () => {});
    session.set('rid', m.rid);
    await session.apush('rid');
    session.on('closed', (closed) => this.leave(closed));
    const { add } = (app.rpc as any).chat.chatRemote;
    return { users: await add.route(session)(uid, app.getServerId(), m.rid, true) };
  }

  private leave(session: FrontendSession) {
    const { kick } = (this.app.rpc as any).chat.chatRemote;
    const left = kick.route(session)(session.uid, this.app.getServerId(), session.get('rid'));
    left.catch(() => console.error('still in its room: ' + session.uid));
  }
}
