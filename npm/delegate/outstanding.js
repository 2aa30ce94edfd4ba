// The calls to each frontend that have no answer yet. They and the answers for clients travel on different
// connections, so an answer waits until all calls to its frontend that began before it have ended: then it cannot
// overtake what its handler did. In the same way a call that names users waits for earlier binds, because a frontend
// on several cores executes them at the same time.
//
// An answer waits for the calls of all handlers, not only for those of its own. To know its own ones would take an
// AsyncLocalStorage, whose context is lost in the callbacks of pooled connections, and a call that is not seen is a
// message that is lost. The price is a part of one round trip to the frontend.
'use strict';

// Bound: a call holds answers for so long, and is given up then.
const HOLD_MS = 5000;

const SERVICES = ['sessionRemote', 'channelRemote'];
const BINDS = ['bind', 'unbind'];
const BY_UID = ['pushMessage', 'broadcast', 'kickByUid', 'getBackendSessionsByUid'];

module.exports = class Outstanding {
  constructor() {
    this.frontends = new Map(); // by id
    this.last = 0; // number of the newest call
    this.givenUp = 0;
    setInterval(() => this.giveUp(Date.now() - HOLD_MS), 1000).unref();
  }

  // Makes a call by the framework's function, and remembers one that changes or reaches sessions.
  invoke(plain, id, message, cb) {
    const { namespace, service, method } = message;
    if (namespace !== 'sys' || !SERVICES.includes(service) || method === 'getBackendSessionBySid') {
      return plain(id, message, cb);
    }
    const frontend = this.frontend(id);
    this.last += 1;
    const number = this.last;
    frontend.calls.set(number, Date.now());
    const end = () => {
      frontend.calls.delete(number);
      frontend.binds.delete(number);
      release(frontend);
    };
    const go = () => {
      if (BINDS.includes(method)) {
        frontend.binds.add(number);
      }
      return call(plain, id, message, cb, end);
    };
    if (!waits(frontend, message)) {
      return go();
    }
    frontend.waitingCalls.push({ last: number, message, go });
    return undefined;
  }

  // Sends an answer after all calls to its frontend that began before.
  after(id, go) {
    const frontend = this.frontends.get(id);
    if (!frontend || frontend.calls.size === 0) {
      return go();
    }
    frontend.waitingAnswers.push({ last: this.last, go });
  }

  // Gives up the calls that began before a time.
  giveUp(before) {
    for (const [id, frontend] of this.frontends) {
      const old = [...frontend.calls].filter(([, began]) => began < before);
      if (old.length > 0) {
        this.givenUp += old.length;
        console.warn(`tangelo/delegate: ${id} has not answered ${old.length} calls for ${HOLD_MS} ms, answers to its `
          + `clients wait for them no longer (${this.givenUp} in all)`);
        for (const [number] of old) {
          frontend.calls.delete(number);
          frontend.binds.delete(number);
        }
        release(frontend);
      }
    }
  }

  // Forgets a frontend that has gone.
  forget(id) {
    const frontend = this.frontends.get(id);
    if (frontend) {
      this.frontends.delete(id);
      frontend.calls.clear();
      frontend.binds.clear();
      release(frontend);
    }
  }

  frontend(id) {
    if (!this.frontends.has(id)) {
      this.frontends.set(id, {
        calls: new Map(), // number → time of the start
        binds: new Set(), // numbers of those calls that bind or unbind
        waitingCalls: [], // each until all binds up to a number have ended
        waitingAnswers: [], // each until all calls up to a number have ended
      });
    }
    return this.frontends.get(id);
  }
};

// Returns whether a call has to wait for one before it. A bind waits only for a kick of its own uid, which would else
// meet the new session; so logins do not wait for each other.
function waits({ binds, waitingCalls }, { method, args = [] }) {
  if (method === 'bind') {
    return waitingCalls.some(({ message }) => message.method === 'kickByUid' && String(message.args[0]) === String(args[1]));
  }
  const waitsForBinds = BY_UID.includes(method) && binds.size > 0;
  return waitsForBinds || (waitingCalls.length > 0 && method !== 'push' && method !== 'pushAll');
}

function call(plain, id, message, cb, end) {
  try {
    return plain(id, message, (...results) => {
      try {
        if (typeof cb === 'function') {
          cb(...results);
        }
      } finally {
        end();
      }
    });
  } catch (error) {
    end();
    throw error;
  }
}

// Lets go what has to wait no longer.
function release({ calls, binds, waitingCalls, waitingAnswers }) {
  letGo(waitingCalls, binds);
  letGo(waitingAnswers, calls);
}

function letGo(waiting, numbers) {
  // Both are in the order of their numbers.
  const oldest = () => numbers.keys().next().value || Infinity;
  while (waiting.length > 0 && waiting[0].last < oldest()) {
    try {
      waiting.shift().go();
    } catch (error) {
      // The others must not wait for ever.
      console.error('tangelo/delegate:', error);
    }
  }
}
