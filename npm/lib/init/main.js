'use strict';
// `tangelo init`: reads a project, and writes what tangelo needs to take the place of its frontends.

const fs = require('fs');
const path = require('path');
const { isDeepStrictEqual } = require('util');
const { findBinary } = require('../binary');
const { FOLDER, settingsName } = require('../settingsFile');
const { Changes } = require('./changes');
const { environments, frontendTypes, isFrontend, words } = require('./cluster');
const { readConfig } = require('./configFile');
const { Failure } = require('./failure');
const { print } = require('./json');
const { Notes } = require('./notes');
const { USAGE, parse } = require('./options');
const { findProject, isInstalled } = require('./project');
const { record } = require('./recording');
const { changeServers, changeTokens, delegateOf } = require('./servers');
const { settings } = require('./settings');
const { ownCode } = require('./settings/application');
const { askedFunctions } = require('./settings/client');

/** The file that `npm pack` makes of this package. */
const FILE = `tangelo-${require('../../package.json').version}.tgz`;

/** The files that tangelo reads. */
const SCRIPTS = ['servers', 'master', 'adminServer', 'dictionary', 'serverProtos', 'clientProtos', 'crons'];

/** Runs the command and returns its exit status: 0, 1 if `--check` found a change, 2 after an error. */
function main(args) {
  try {
    const options = parse(args);
    if (options.help) {
      console.log(USAGE);
      return 0;
    }
    return init(options);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    console.error(`tangelo init: ${error.message}`);
    return 2;
  }
}

function init(options) {
  const project = findProject(options.dir);
  const notes = new Notes();
  const changes = new Changes(options);
  const clusters = environments(project);
  const frontends = clusters.flatMap((cluster) => frontendsOf(project, cluster));
  if (frontends.length === 0) throw new Failure(`${options.dir}: servers.json has no frontend`);
  const ids = frontends.flatMap(({ entries }) => entries.map(({ id }) => id));
  const unknown = (options.only || []).find((id) => !ids.includes(id));
  if (unknown !== undefined) throw new Failure(`--only ${unknown}: no frontend of servers.json has this id`);

  writeSettings(project, frontends, changes, notes);
  writeServers(project, clusters, frontends, options.only, changes, notes);
  writeTokens(project, clusters, frontends, changes, notes);
  writeScripts(project, clusters, changes, notes);
  for (const folder of configFolders(project)) {
    changes.plain(path.join(folder, FOLDER, 'report.txt'), `${notes.report().join('\n')}\n`);
  }
  tell(project, notes, changes, options);
  return options.check && changes.areLeft ? 1 : 0;
}

/** Records each type of frontends of one environment. */
function frontendsOf(project, { env, types }) {
  return frontendTypes(types).map((type) => {
    const entries = types[type].filter(isFrontend);
    const found = record(project, words(env, type, entries[0]));
    const asks = Object.entries(found.routes).some(([to, { strategy }]) => to !== type && !strategy);
    const hasCode = asks || ownCode(project.base, type).length > 0 || askedFunctions(found).length > 0
      || found.plugins.length > 0;
    const delegate = hasCode ? delegateOf(types, type) : undefined;
    return { type, env, entries, delegate, record: found, project };
  });
}

/** Writes one file for each type, or one for each environment if they differ. */
function writeSettings(project, frontends, changes, notes) {
  for (const type of new Set(frontends.map((frontend) => frontend.type))) {
    const found = frontends.filter((frontend) => frontend.type === type);
    const texts = found.map((frontend) => settings(frontend, notes));
    const isOne = texts.every((text) => text === texts[0]);
    const files = isOne ? [[settingsName(type), texts[0]]]
      : texts.map((text, at) => [settingsName(type, found[at].env), text]);
    for (const [name, text] of files) {
      for (const folder of configFolders(project)) changes.own(path.join(folder, FOLDER, name), text);
      notes.done(`config/${FOLDER}/${name} has the settings of ${type}`);
    }
  }
}

function writeServers(project, clusters, frontends, only, changes, notes) {
  const changed = new Map();
  for (const cluster of clusters) {
    const { file, json, isScript } = cluster.source;
    const withDelegate = frontends
      .filter(({ env, delegate }) => env === cluster.env && delegate)
      .map(({ type }) => type);
    const before = changed.get(file) || json;
    const after = changeServers(before, cluster, withDelegate, only, isScript ? new Notes() : notes);
    if (!isScript) changed.set(file, after);
    if (isScript && !isDeepStrictEqual(before, after)) {
      notes.ask(`make it export, for ${cluster.env}: ${JSON.stringify(after[cluster.env] || after)}`, nameOf(project, file));
    }
  }
  for (const [file, json] of changed) change(project, file, json, changes, notes);
}

function writeTokens(project, clusters, frontends, changes, notes) {
  const changed = new Map();
  for (const { env } of clusters) {
    const found = readConfig(project, 'adminServer', env);
    if (!found || !Array.isArray(found.json)) continue;
    const { file, json, isScript } = found;
    const pairs = frontends.filter((frontend) => frontend.env === env && frontend.delegate);
    const after = changeTokens(changed.get(file) || json, pairs, isScript ? new Notes() : notes);
    if (isScript && !isDeepStrictEqual(after, json)) {
      notes.ask(`make it export: ${JSON.stringify(after)}`, nameOf(project, file));
    }
    if (!isScript) changed.set(file, after);
  }
  for (const [file, json] of changed) change(project, file, json, changes, notes);
}

/** Writes the JSON of each script that tangelo needs; it runs no JavaScript. */
function writeScripts(project, clusters, changes, notes) {
  for (const { env } of clusters) {
    for (const name of SCRIPTS) {
      const found = readConfig(project, name, env);
      if (!found || !found.isScript) continue;
      const file = found.file.replace(/\.js$/, '.json');
      changes.plain(file, `${print(found.json)}\n`);
      notes.decided(`${nameOf(project, file)} has what the script beside it exports`, 'tangelo reads JSON only; run init again after a change of the script');
    }
  }
}

/** Changes a file of the project: the one that the framework reads, and its source if a build copies it. */
function change(project, file, json, changes, notes) {
  const before = readJson(file);
  if (isDeepStrictEqual(before, json)) return;
  const text = `${print(json)}\n`;
  changes.original(file, text);
  const source = path.join(project.root, path.relative(project.base, file));
  if (source === file) return;
  if (fs.existsSync(source) && isDeepStrictEqual(readJson(source), before)) {
    changes.original(source, text);
  } else {
    notes.ask('differs from its copy in dist; build, and run init again', nameOf(project, source));
  }
}

function readJson(file) {
  return JSON.parse(fs.readFileSync(file, 'utf8').replace(/^\ufeff/, ''));
}

/** The folders `config` of the build and of the sources, from which a build copies. */
function configFolders({ base, root }) {
  const folders = [...new Set([base, root])].map((folder) => path.join(folder, 'config'));
  return folders.filter((folder) => fs.existsSync(folder));
}

function nameOf({ root }, file) {
  return path.relative(root, file);
}

function tell(project, notes, changes, { check }) {
  const { root, name, version } = project;
  console.log(`project  ${root}, ${name} ${version}`);
  console.log(notes.lines(changes.areLeft ? { done: 'to do' } : {}).join('\n'));
  const verb = check ? 'would write' : 'wrote';
  for (const file of changes.files) console.log(`${verb} ${nameOf(project, file)}`);
  if (changes.areLeft && !check) console.log('the files of the project are unchanged; init --write changes them');
  if (!changes.areLeft && changes.files.size === 0) console.log('nothing to change');
  const missing = missingBinary();
  if (missing) console.log(`this machine cannot start tangelo yet: ${missing}`);
  if (!isInstalled(project)) {
    console.log(`tangelo is not installed in the project, so its servers cannot start: run npm install ${FILE} in ${root}`);
  }
}

/** Returns the reason why the launcher finds no binary here. */
function missingBinary() {
  try {
    findBinary();
    return undefined;
  } catch (error) {
    return error.message;
  }
}

module.exports = { main };
