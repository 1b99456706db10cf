// ddp.js over a raw WebSocket or, with SOCKJS=transport, over that transport of sockjs-client.
//
// ddp.js keeps no documents, so this program does, as strictly as a Meteor server does for another server's data: an
// `added` of a known document or a `changed` or `removed` of an unknown one ends it.

import DDP from "ddp.js";
import SockJS from "sockjs-client";
import WebSocket from "ws";
import { drive, told } from "./driver.mjs";

const transport = process.env.SOCKJS;
class OneTransport extends SockJS {
  constructor(url) {
    super(url, null, { transports: [transport] });
  }
}

const url = process.env.SERVER_URL;
const ddp = new DDP.default({
  ...(transport
    ? { endpoint: url + "/sockjs", SocketConstructor: OneTransport }
    : { endpoint: url.replace(/^http/, "ws") + "/websocket", SocketConstructor: WebSocket }),
  autoConnect: false,
  autoReconnect: false,
});

const collections = {};
const waiting = new Map(); // "msg id" -> the function to hand the message to

const awaited = (msg, id) => new Promise((resolve) => waiting.set(`${msg} ${id}`, resolve));
const arrived = (msg, id, message) => {
  waiting.get(`${msg} ${id}`)?.(message);
  waiting.delete(`${msg} ${id}`);
};

const known = ({ collection, id, msg }) => {
  const document = collections[collection]?.[id];
  if (!document) throw new Error(`${msg} of ${collection} ${id}, which was never added`);
  return document;
};

const handlers = {
  added: ({ collection, id, fields }) => {
    const documents = (collections[collection] ??= {});
    if (id in documents) throw new Error(`second added of ${collection} ${id}`);
    documents[id] = { ...fields };
  },
  changed: (message) => {
    const document = Object.assign(known(message), message.fields);
    for (const name of message.cleared ?? []) delete document[name];
  },
  removed: (message) => {
    known(message);
    delete collections[message.collection][message.id];
  },
  ready: (message) => message.subs.forEach((id) => arrived("sub", id, message)),
  nosub: (message) => {
    arrived("sub", message.id, message);
    arrived("unsub", message.id, message);
  },
  result: (message) => arrived("result", message.id, message),
  updated: (message) => message.methods.forEach((id) => arrived("updated", id, message)),
  error: () => {},
};
for (const [msg, handle] of Object.entries(handlers)) {
  ddp.on(msg, (message) => {
    handle(message);
    told(message);
  });
}

await drive({
  connect: () => {
    const connected = new Promise((resolve, reject) => {
      ddp.on("connected", resolve);
      ddp.on("disconnected", () => reject({ reason: "disconnected" }));
    });
    ddp.connect();
    return connected;
  },
  subscribe: async (name, ...params) => {
    const id = ddp.sub(name, params);
    const { msg, error } = await awaited("sub", id);
    if (msg === "nosub") throw error;
    return id;
  },
  unsubscribe: async (id) => {
    ddp.unsub(id);
    await awaited("unsub", id);
  },
  call: async (name, ...params) => {
    const id = ddp.method(name, params);
    const [{ error, result }] = await Promise.all([awaited("result", id), awaited("updated", id)]);
    if (error) throw error;
    return result;
  },
  documents: () => collections,
  close: () => ddp.disconnect(),
});
