'use strict';
// The sockets of a project while it is recorded: none of its listeners opens, and each is noted, as are the
// connections that it opens itself, such as those to a database.

const dgram = require('dgram');
const net = require('net');

/** Enough to tell a person; more of them are left out. */
const OPENED_MAX = 50;

const seen = new Set();

function note(text) {
  if (seen.size < OPENED_MAX) seen.add(text);
}

/** Replaces `listen` and `bind` by functions that succeed without a socket. */
function replaceListen() {
  net.Server.prototype.listen = function (...args) {
    note(`wants to listen on ${addressOf(args)}`);
    const told = args.find((arg) => typeof arg === 'function');
    setImmediate(() => {
      if (told) told.call(this);
      this.emit('listening');
    });
    return this;
  };
  dgram.Socket.prototype.bind = function (...args) {
    note(`wants to listen on ${addressOf(args)} (UDP)`);
    return this;
  };
  const connect = net.Socket.prototype.connect;
  net.Socket.prototype.connect = function (...args) {
    note(`connects to ${addressOf(Array.isArray(args[0]) ? args[0] : args)}`);
    return connect.apply(this, args);
  };
}

function addressOf([first, second]) {
  if (first !== null && typeof first === 'object') {
    return first.path || `${first.host || ''}:${first.port}`;
  }
  return typeof second === 'string' ? `${second}:${first}` : String(first);
}

/** Returns one text for each address. */
function opened() {
  return [...seen];
}

module.exports = { opened, replaceListen };
