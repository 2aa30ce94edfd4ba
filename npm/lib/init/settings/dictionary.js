'use strict';
// The dictionary and the protos.

const path = require('path');
const { placeOf } = require('./place');

function dictionary(toml, { type, record, project }, notes) {
  const found = record.dictionary;
  if (found && found.error) {
    notes.ask(`${type}: the framework cannot make the dictionary: ${found.error}; set handler_routes by hand`);
  } else if (found) {
    if (found.handlers.length > 0) {
      toml.set('handler_routes', found.handlers, 'Routes with a code, as the framework computes them.');
    }
    if (found.user.length > 0) toml.set('dictionary', found.user, 'The dictionary of the project.');
  }
  protos(toml, record, project, notes);
}

function protos(toml, record, project, notes) {
  const config = record.settings.protobufConfig || {};
  const place = placeOf(record, 'set protobufConfig');
  for (const [option, key] of [['serverProtos', 'server_protos'], ['clientProtos', 'client_protos']]) {
    const file = config[option];
    if (!file) continue;
    if (String(file).endsWith('.json')) {
      toml.set(`client.${key}`, path.join(project.base, file), `${place}: ${option}`);
    } else {
      notes.ask(`protobufConfig.${option} = ${file}: write it as JSON, and name it in client.${key}`, place);
    }
  }
  if (config.decodeCheckMsg) toml.set('client.protobuf_check', true, `${place}: decodeCheckMsg`);
}

module.exports = { dictionary };
