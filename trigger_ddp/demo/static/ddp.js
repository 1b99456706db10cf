// A DDP client for browsers, small enough to be read in one sitting.
//
//   const client = new DDPClient('ws://localhost:8000/websocket');
//   client.addEventListener('status', () => console.log(client.status));
//   client.collection('bookstore.book').addEventListener('change', ({ detail }) => console.log(detail));
//   client.connect();
//   const books = client.subscribe('AllBooks');
//   await books.ready;
//   await client.call('bookstore/setPrice', '7', 12.5);
//
// Documents are kept through an outage. After reconnecting they are compared with what the server sends
// anew, so that listeners hear of the differences only.

import { decode, encode } from './ejson.js';

/** All in milliseconds; each may be given to the constructor. */
const TIMES = {
  connectTimeout: 10_000, // until the server has answered `connect`
  pingAfter: 15_000, // of silence the server is asked whether it is there
  pongTimeout: 10_000, // until it has answered that
  firstDelay: 500, // before the first new attempt; doubled for every further one
  longestDelay: 30_000,
};

/** What a method or a subscription failed with: `error` is the server's code, `reason` its text. */
export class DDPError extends Error {
  constructor({ error, reason, details, message }) {
    super(message ?? (reason ? `${reason} [${error}]` : `[${error}]`));
    this.name = 'DDPError';
    this.error = error;
    this.reason = reason;
    this.details = details;
  }
}

/** Document ids as Meteor writes them: text as it is, "-" before text that would be misread, "~" before JSON. */
function parseId(id) {
  if (id.startsWith('-')) return id.slice(1);
  if (id.startsWith('~')) return String(JSON.parse(id.slice(1)));
  return id;
}

/**
 * The documents of one collection that the client's subscriptions show, by id.
 *
 * Fires 'change' with `detail` = {type: 'added' | 'changed' | 'removed', id, document, fields}: `fields` are the names
 * that differ, `document` is what is there now (for 'removed': what was). Documents are never modified, only replaced.
 */
export class Collection extends EventTarget {
  #documents = new Map();

  get size() {
    return this.#documents.size;
  }

  get(id) {
    return this.#documents.get(String(id));
  }

  [Symbol.iterator]() {
    return this.#documents.values();
  }

  /** Apply one data message. As Meteor's store does, it takes `added` for a known id and the like in its stride. */
  apply({ msg, id, fields = {}, cleared = [] }) {
    id = parseId(id);
    const known = this.#documents.get(id);
    if (msg === 'removed') {
      if (known) this.#remove(id, known);
    } else if (msg === 'added') {
      this.#put(id, { _id: id, ...fields });
    } else {
      const document = { _id: id, ...known, ...fields };
      for (const name of cleared) delete document[name];
      this.#put(id, document);
    }
  }

  /** Make the contents those of `other`, telling only the differences. */
  become(other) {
    for (const [id, document] of [...this.#documents]) if (!other.#documents.has(id)) this.#remove(id, document);
    for (const [id, document] of other.#documents) this.#put(id, document);
  }

  #put(id, document) {
    const known = this.#documents.get(id);
    const names = new Set([...Object.keys(known ?? {}), ...Object.keys(document)]);
    const fields = [...names].filter((name) => !sameValue(known?.[name], document[name]));
    if (known && !fields.length) return;
    this.#documents.set(id, document);
    this.#tell(known ? 'changed' : 'added', id, document, fields);
  }

  #remove(id, document) {
    this.#documents.delete(id);
    this.#tell('removed', id, document, Object.keys(document));
  }

  #tell(type, id, document, fields) {
    this.dispatchEvent(new CustomEvent('change', { detail: { type, id, document, fields } }));
  }
}

const sameValue = (one, other) => one === other || JSON.stringify(encode(one)) === JSON.stringify(encode(other));

/** A running subscription. `ready` resolves with the first snapshot and rejects if the server refuses. */
class Subscription {
  constructor(id, name, params, stop) {
    this.id = id;
    this.name = name;
    this.params = params;
    this.stop = stop;
    this.ready = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    this.ready.catch(() => {}); // a caller who does not ask shall not see "unhandled rejection"
  }
}

/**
 * One connection that mends itself.
 *
 * Events: 'status' whenever `status` is another; 'message' with `detail` = {direction: 'in' | 'out', text} for every
 * frame. `status.state` is 'offline' (not asked to connect), 'connecting', 'connected', or 'waiting' until
 * `status.retryAt` (milliseconds as Date.now()) for the next attempt; `status.reason` says why.
 */
export class DDPClient extends EventTarget {
  #url;
  #times;
  #socket = null;
  #status = { state: 'offline', attempt: 0, retryAt: null, reason: null };
  #retryTimer = null;
  #watchdog = null;
  #lastId = 0;
  #collections = new Map();
  #subscriptions = new Map();
  #methods = new Map();
  #resync = null; // after a reconnect: {collections, awaited: ids of subscriptions that are not ready yet}

  constructor(url, times = {}) {
    super();
    this.#url = url;
    this.#times = { ...TIMES, ...times };
    globalThis.addEventListener?.('online', () => this.#retryNow());
    globalThis.document?.addEventListener('visibilitychange', () => !document.hidden && this.#retryNow());
  }

  get status() {
    return this.#status;
  }

  /** Connect, now even if a later attempt is scheduled; stays connected until `disconnect`. */
  connect() {
    if (this.#socket) return;
    clearTimeout(this.#retryTimer);
    this.#become({ state: 'connecting', retryAt: null });
    this.#open();
  }

  /** Go offline until `connect` is called. Documents and subscriptions are kept. */
  disconnect() {
    clearTimeout(this.#retryTimer);
    this.#abandonSocket();
    this.#failSentMethods();
    this.#become({ state: 'offline', attempt: 0, retryAt: null, reason: null });
  }

  collection(name) {
    if (!this.#collections.has(name)) this.#collections.set(name, new Collection());
    return this.#collections.get(name);
  }

  /** Subscribe now and after every reconnect, until the returned subscription's `stop()`. */
  subscribe(name, ...params) {
    const id = this.#newId();
    const subscription = new Subscription(id, name, params, () => {
      if (this.#subscriptions.delete(id) && this.#status.state === 'connected') this.#send({ msg: 'unsub', id });
      this.#settleResync(id);
    });
    this.#subscriptions.set(id, subscription);
    if (this.#status.state === 'connected') this.#sendSubscription(subscription);
    return subscription;
  }

  /**
   * Call a method. The promise is settled when its result is here and its writes are in the collections.
   * A call made while offline is sent on connecting; one whose connection is lost before the answer is rejected
   * with 'connection-lost', since nobody here can know whether it ran.
   */
  call(name, ...params) {
    return new Promise((resolve, reject) => {
      const id = this.#newId();
      const message = { msg: 'method', id, method: name, params: encode(params) };
      this.#methods.set(id, { message, resolve, reject, sent: false, answer: null, updated: false });
      if (this.#status.state === 'connected') this.#sendMethod(id);
    });
  }

  // -- the socket ------------------------------------------------------------------------------------------------

  #open() {
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    const current = (listener) => (event) => this.#socket === socket && listener(event);
    socket.addEventListener('open', current(() => this.#send({ msg: 'connect', version: '1', support: ['1'] })));
    socket.addEventListener('message', current(({ data }) => this.#receive(data)));
    socket.addEventListener('close', current(({ reason }) => this.#lost(reason || 'The connection was closed')));
    this.#watchdog = setTimeout(() => this.#lost('The server does not answer'), this.#times.connectTimeout);
  }

  #abandonSocket() {
    clearTimeout(this.#watchdog);
    const socket = this.#socket;
    this.#socket = null;
    this.#resync = null;
    socket?.close();
  }

  #lost(reason) {
    this.#abandonSocket();
    this.#failSentMethods();
    const { attempt } = this.#status;
    // Half of the delay is chance, so that a thousand clients of a restarted server don't return at once.
    const { firstDelay, longestDelay } = this.#times;
    const delay = Math.min(longestDelay, firstDelay * 2 ** attempt) * (0.5 + Math.random() / 2);
    this.#become({ state: 'waiting', attempt: attempt + 1, retryAt: Date.now() + delay, reason });
    this.#retryTimer = setTimeout(() => this.connect(), delay);
  }

  #retryNow() {
    if (this.#status.state === 'waiting') this.connect();
  }

  #send(message) {
    const text = JSON.stringify(message);
    this.#socket.send(text);
    this.#tellMessage('out', text);
  }

  /** Anything heard shows that the server lives; after a silence it is asked, and given up if it says nothing. */
  #keepWatch() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => {
      this.#send({ msg: 'ping' });
      this.#watchdog = setTimeout(() => this.#lost('The server does not answer'), this.#times.pongTimeout);
    }, this.#times.pingAfter);
  }

  // -- messages --------------------------------------------------------------------------------------------------

  #receive(text) {
    this.#tellMessage('in', text);
    if (this.#status.state === 'connected') this.#keepWatch();
    const message = JSON.parse(text);
    switch (message.msg) {
      case 'connected':
        return this.#connected();
      case 'failed':
        this.disconnect();
        return this.#become({ reason: `The server speaks DDP ${message.version} only` });
      case 'ping':
        return this.#send({ ...message, msg: 'pong' });
      case 'added':
      case 'changed':
      case 'removed':
        return this.#store(message.collection).apply({ ...message, fields: decode(message.fields) });
      case 'ready':
        return message.subs.forEach((id) => this.#ready(id));
      case 'nosub':
        return this.#refused(message);
      case 'result':
        return this.#answered(message.id, { answer: message });
      case 'updated':
        return message.methods.forEach((id) => this.#answered(id, { updated: true }));
      case 'error':
        return console.error('The server did not understand', message);
    }
  }

  #connected() {
    this.#become({ state: 'connected', attempt: 0, retryAt: null, reason: null });
    this.#keepWatch();
    if ([...this.#collections.values()].some((collection) => collection.size)) {
      this.#resync = { collections: new Map(), awaited: new Set(this.#subscriptions.keys()) };
      this.#settleResync(null);
    }
    for (const [id, method] of this.#methods) if (!method.sent) this.#sendMethod(id);
    for (const subscription of this.#subscriptions.values()) this.#sendSubscription(subscription);
  }

  /** Where data goes: into the collection, or, until all is sent anew after a reconnect, into its replacement. */
  #store(name) {
    if (!this.#resync) return this.collection(name);
    const { collections } = this.#resync;
    if (!collections.has(name)) collections.set(name, new Collection());
    return collections.get(name);
  }

  #settleResync(id) {
    if (!this.#resync) return;
    this.#resync.awaited.delete(id);
    if (this.#resync.awaited.size) return;
    const { collections } = this.#resync;
    this.#resync = null;
    for (const name of collections.keys()) this.collection(name);
    for (const [name, collection] of this.#collections) collection.become(collections.get(name) ?? new Collection());
  }

  // -- subscriptions and methods -----------------------------------------------------------------------------------

  #newId() {
    return String(++this.#lastId);
  }

  #sendSubscription({ id, name, params }) {
    this.#send({ msg: 'sub', id, name, params: encode(params) });
  }

  #ready(id) {
    this.#settleResync(id);
    this.#subscriptions.get(id)?.resolve();
  }

  #refused({ id, error }) {
    const subscription = this.#subscriptions.get(id);
    this.#subscriptions.delete(id);
    this.#settleResync(id);
    if (error) subscription?.reject(new DDPError(error));
  }

  #sendMethod(id) {
    const method = this.#methods.get(id);
    method.sent = true;
    this.#send(method.message);
  }

  #answered(id, news) {
    const method = this.#methods.get(id);
    if (!method) return;
    Object.assign(method, news);
    if (!method.answer || !method.updated) return;
    this.#methods.delete(id);
    if (method.answer.error) method.reject(new DDPError(method.answer.error));
    else method.resolve(decode(method.answer.result));
  }

  #failSentMethods() {
    for (const [id, method] of this.#methods) {
      if (!method.sent) continue;
      this.#methods.delete(id);
      const reason = 'The connection was lost before the answer came';
      method.reject(new DDPError({ error: 'connection-lost', reason }));
    }
  }

  // -- events ----------------------------------------------------------------------------------------------------

  #become(status) {
    this.#status = { ...this.#status, ...status };
    this.dispatchEvent(new CustomEvent('status', { detail: this.#status }));
  }

  #tellMessage(direction, text) {
    this.dispatchEvent(new CustomEvent('message', { detail: { direction, text } }));
  }
}
