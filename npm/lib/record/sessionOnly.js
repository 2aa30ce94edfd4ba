'use strict';
// A test of the text of a route function: does it use nothing but the session and the list of servers? Its answer for a
// session then stays the same until one of them changes. The test knows the few words that such functions have; a
// function with any other word fails.

/** Members of the session and of the application that only tell something. */
const SESSION = ['get', 'uid', 'id', 'frontendId'];
const APP = ['getServersByType', 'getServers', 'getServerById', 'getServerTypes'];

/** Other members that change nothing, and give the same each time. */
const MEMBERS = ['id', 'serverType', 'host', 'port', 'clientHost', 'clientPort', 'length', 'name',
  'abs', 'floor', 'ceil', 'round', 'trunc', 'min', 'max', 'parseInt', 'isInteger', 'isNaN',
  'map', 'filter', 'find', 'findIndex', 'indexOf', 'includes', 'some', 'every', 'forEach', 'slice', 'concat', 'join',
  'charAt', 'charCodeAt', 'substr', 'substring', 'split', 'startsWith', 'endsWith', 'toString', 'trim'];

const WORDS = ['if', 'else', 'return', 'const', 'let', 'var', 'for', 'of', 'in', 'while', 'break', 'continue', 'typeof',
  'new', 'function', 'true', 'false', 'null', 'undefined', 'throw',
  'Math', 'Number', 'String', 'Boolean', 'Error', 'parseInt', 'parseFloat', 'isNaN'];

const SPACE = /^(\s|\/\/|\/\*)/;
const NAME = /^[A-Za-z_$]/;
const TEXT = /^['"]/;
const TOKEN = new RegExp([
  /\s+|\/\/[^\n]*|\/\*[^]*?\*\//, // space and comments
  /'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"/,
  /[A-Za-z_$][\w$]*|\d[\w.]*/,
  /=>|\+\+|--|[=!<>]==?|&&|\|\||\*\*|<<|>>/,
  /[^]/,
].map(({ source }) => source).join('|'), 'g');

/** @param {Function} route */
function usesSessionOnly(route) {
  const tokens = String(route).match(TOKEN).filter((token) => !SPACE.test(token));
  if (tokens[0] === 'async') tokens.shift();
  const found = parametersOf(tokens);
  if (!found || found.names.length !== 4) return false;
  const [session, message, app, cb] = found.names;
  const body = tokens.slice(found.end);
  const known = new Set([...WORDS, ...declared(body), cb]);
  if (known.has(session) || known.has(app) || known.has(message)) return false;
  return body.every((token, at) => {
    const [before, next, member] = [body[at - 1], body[at + 1], body[at + 2]];
    if (isWrite(body, at)) return false;
    if (TEXT.test(token)) return before !== '[';
    if (!NAME.test(token)) return !'`\\#@'.includes(token) && !(token === '/' && isBeforeValue(before));
    if (before === '.') return [session, app].includes(body[at - 2]) || MEMBERS.includes(token);
    if (token === session) return next === '.' && SESSION.includes(member);
    if (token === app) return next === '.' && APP.includes(member);
    return known.has(token);
  });
}

/** Whether something other than a variable of the function gets a value here: `a.b = 1`, `++a[0]`. */
function isWrite(body, at) {
  const [before, token, next, nextBut1] = [body[at - 1], body[at], body[at + 1], body[at + 2]];
  if (token === '++' || token === '--') {
    const isSuffix = NAME.test(before) && body[at - 2] !== '.';
    const isPrefix = NAME.test(next || '') && !'.[('.includes(nextBut1);
    return !isSuffix && !isPrefix;
  }
  // `for (a.b of list)` gives one too.
  if (token === 'of' || token === 'in') return !NAME.test(before) || body[at - 2] === '.';
  if (token !== '=') return false;
  const target = '+-*/%&|^'.includes(before) || ['**', '<<', '>>', '&&', '||'].includes(before) ? at - 2 : at - 1;
  return !NAME.test(body[target]) || body[target - 1] === '.';
}

/** Whether a `/` behind this token begins a regular expression. */
function isBeforeValue(token) {
  return !(NAME.test(token) || /^[\d)\]]/.test(token)) || WORDS.includes(token);
}

/** Returns the variables of a function's body, and the parameters of functions in it. */
function declared(body) {
  return body.flatMap((token, at) => {
    const before = body[at - 1];
    if (NAME.test(token) && (['const', 'let', 'var'].includes(before) || body[at + 1] === '=>')) return [token];
    const list = token === '(' && parametersOf(body.slice(at));
    const isFunction = list && (body[at + list.end] === '=>' || before === 'function' || body[at - 2] === 'function');
    return isFunction ? list.names : [];
  });
}

/** Returns the names of plain parameters, and the place behind them. */
function parametersOf(tokens) {
  const open = tokens.indexOf('(');
  const close = tokens.indexOf(')');
  const inside = tokens.slice(open + 1, close);
  const isList = inside.every((token, at) => (at % 2 === 0 ? NAME.test(token) : token === ','));
  const isPlain = open === 0 || (open <= 2 && tokens[0] === 'function');
  return isList && isPlain ? { names: inside.filter((token) => token !== ','), end: close + 1 } : null;
}

module.exports = { usesSessionOnly };
