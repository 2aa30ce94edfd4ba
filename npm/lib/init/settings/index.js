'use strict';
// The record of a frontend → its tangelo.toml, with notes for all that a file cannot say.

const { Toml } = require('../toml');
const { application } = require('./application');
const { client } = require('./client');
const { dictionary } = require('./dictionary');
const { filters } = require('./filters');
const { push } = require('./push');
const { routes } = require('./routes');
const { rpc } = require('./rpc');

/**
 * @typedef {object} Frontend
 * @property {string} type server type
 * @property {string} env environment
 * @property {string} [delegate] server type of its delegate
 * @property {object[]} entries its servers
 * @property {import('../../record/collect').Record} record
 * @property {import('../project').Project} project
 */

/**
 * Returns the text of the settings.
 *
 * @param {Frontend} frontend
 * @param {import('../notes').Notes} notes
 */
function settings(frontend, notes) {
  const toml = new Toml();
  toml.set('dialect', frontend.project.name);
  for (const part of [application, dictionary, routes, client, filters, push, rpc]) {
    part(toml, frontend, notes);
  }
  return toml.toString();
}

module.exports = { settings };
