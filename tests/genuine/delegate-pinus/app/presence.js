// A plugin hears of all sessions, as the one for the status of players does.
'use strict';

const { log } = require('./log');

class Component {
  constructor(app, { sign }) {
    this.name = 'presence';
    app.set('presence', { note: (event, { uid, frontendId }) => log.push(`${event} ${uid} at ${frontendId}${sign}`) });
  }
}

class Events {
  constructor() {
    const { app } = require('pinus').pinus;
    for (const event of ['bind_session', 'unbind_session', 'close_session']) {
      this[event] = (session) => app.get('presence').note(event, session);
    }
  }
}

exports.presence = { name: 'presence', components: [Component], events: [Events] };
