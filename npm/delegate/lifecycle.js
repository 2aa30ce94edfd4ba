// `lifecycle.js` of the frontends' types. Its functions run once in this process, before those of its own type.
'use strict';

const fs = require('fs');
const path = require('path');

module.exports = function loadLifecycles(app, types) {
  for (const type of types) {
    const file = path.join(app.getBase(), 'app/servers', type, 'lifecycle.js');
    if (fs.existsSync(file)) {
      add(app, require(file));
    }
  }
};

function add(app, loaded) {
  if (app.usedPlugins) {
    // Pinus
    app.usedPlugins.push(loaded.default(app));
    return;
  }
  for (const [name, first] of Object.entries(loaded)) {
    const then = app.lifecycleCbs[name];
    app.lifecycleCbs[name] = then ? inTurn(first, then) : first;
  }
}

// All functions of a lifecycle but `afterStartAll` have a callback behind the application.
function inTurn(first, then) {
  return (app, done, ...more) => {
    if (done) {
      first(app, () => then(app, done, ...more), ...more);
    } else {
      first(app);
      then(app);
    }
  };
}
