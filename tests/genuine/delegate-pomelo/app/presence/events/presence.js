// A plugin hears of all sessions, as the one for the status of players does.
'use strict';

module.exports = function Presence(app) {
  for (const event of ['bind_session', 'unbind_session', 'close_session']) {
    this[event] = (session) => app.get('presence').note(event, session);
  }
};
