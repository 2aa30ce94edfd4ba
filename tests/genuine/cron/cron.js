'use strict';
// node cron.js <pomelo|pinus> <file>: for each line {"time": text, "after": [milliseconds]} of the file one line: for each
// of the moments the next three times or null, which is never; instead of all that null for a text that is refused or
// has a field without any value.

process.env.TZ = 'UTC';
const fs = require('fs');
const { log } = console;
for (const name of ['log', 'warn', 'error']) console[name] = () => {};

const [flavour, file] = process.argv.slice(2);
const { createTrigger } = require(flavour === 'pomelo' ? 'pomelo-scheduler/lib/cronTrigger' : 'pinus-scheduler/dist/cronTrigger');

function next(trigger, after) {
  const times = [];
  for (let at = after; times.length < 3 && at !== null; times.push(at)) at = trigger.nextExcuteTime(at);
  return times.includes(null) ? null : times;
}

for (const line of fs.readFileSync(file, 'utf8').split('\n').filter(Boolean)) {
  const { time, after } = JSON.parse(line);
  const fields = createTrigger('* * * * * *').decodeTrigger(time);
  // The schedulers look for what has no value for ever.
  if (!fields || fields.some((field) => Array.isArray(field) && !field.length)) log('null');
  else {
    const trigger = createTrigger(time);
    log(JSON.stringify(after.map((at) => next(trigger, at))));
  }
}
