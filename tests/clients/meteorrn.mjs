// @meteorrn/core, the Meteor client for React Native, over a raw WebSocket.

import { createRequire, register } from "node:module";
import EJSON from "ejson";
import WebSocket from "ws";
import { drive, told } from "./driver.mjs";

register("./meteorrn_hooks.mjs", import.meta.url);
globalThis.require = createRequire(import.meta.url); // to find out that there is no React Native
globalThis.WebSocket = WebSocket;
const { default: Meteor, Accounts, Mongo } = await import("@meteorrn/core");

const stored = new Map();
const AsyncStorage = {
  getItem: async (key) => stored.get(key) ?? null,
  setItem: async (key, value) => void stored.set(key, value),
  removeItem: async (key) => void stored.delete(key),
};

const names = ["bookstore.book", "bookstore.author", "things", "conformance.items"];
const collections = Object.fromEntries(names.map((name) => [name, new Mongo.Collection(name)]));
collections.users = Meteor.users;

Meteor.connect(process.env.SERVER_URL.replace(/^http/, "ws") + "/websocket", {
  AsyncStorage,
  NetInfo: null,
  autoConnect: false,
  reconnectInterval: 10, // it connects at once as well, and this timer would open another socket after disconnect()
});
const { ddp } = Meteor;

const waiting = new Map(); // "msg id" -> the function to hand the message to
const awaited = (msg, id) => new Promise((resolve) => waiting.set(`${msg} ${id}`, resolve));
const arrived = (msg, id, message) => {
  waiting.get(`${msg} ${id}`)?.(message);
  waiting.delete(`${msg} ${id}`);
};

for (const msg of ["added", "changed", "removed", "ready", "nosub", "result", "updated", "error"]) {
  ddp.on(msg, (message) => {
    if (msg === "ready") message.subs.forEach((id) => arrived("sub", id, message));
    if (msg === "nosub") ["sub", "unsub"].forEach((kind) => arrived(kind, message.id, message));
    if (msg === "updated") message.methods.forEach((id) => arrived("updated", id, message));
    told(message, EJSON);
  });
}

const promised = (start) =>
  new Promise((resolve, reject) => start((error, result) => (error ? reject(error) : resolve(result))));

const until = (condition) =>
  new Promise((resolve) => {
    const look = () => (condition() ? resolve() : setTimeout(look, 5));
    look();
  });

const handles = new Map(); // subscription id on the wire -> the client's handle

await drive(
  {
    connect: () => {
      const connected = new Promise((resolve) => ddp.once("connected", resolve));
      Meteor.reconnect();
      return connected;
    },
    subscribe: async (name, ...params) => {
      const handle = Meteor.subscribe(name, ...params);
      const id = Meteor.getData().subscriptions[handle.subscriptionId].subIdRemember;
      const { msg, error } = await awaited("sub", id);
      if (msg === "nosub") throw error;
      handles.set(id, handle);
      return id;
    },
    unsubscribe: async (id) => {
      const stopped = awaited("unsub", id);
      handles.get(id).stop();
      await stopped;
    },
    call: async (name, ...params) => {
      const outcome = promised((callback) => Meteor.call(name, ...params, callback));
      const { id } = Meteor.getData().calls.at(-1);
      const [result] = await Promise.all([outcome, awaited("updated", id)]);
      return result;
    },
    documents: () =>
      Object.fromEntries(
        Object.entries(collections).map(([name, collection]) => [
          name,
          Object.fromEntries(collection.find().fetch().map(({ _id, _version, ...fields }) => [_id, fields])),
        ]),
      ),
    close: () => {
      ddp.disconnect();
      Meteor.disconnect(); // that of another connection, since a logout
    },

    signUp: (options) => promised((callback) => Accounts.createUser(options, callback)),
    login: (user, password) => promised((callback) => Meteor.loginWithPassword(user, password, callback)),
    // The client connects anew once it is logged out.
    logout: () => promised((callback) => Meteor.logout(callback)),
    user: async () => {
      await until(() => !Meteor.loggingIn());
      return { id: Meteor.userId(), username: Meteor.user()?.username ?? null };
    },
    lose: async () => {
      const again = new Promise((resolve) => ddp.once("connected", resolve));
      ddp.socket.rawSocket.close();
      await again;
    },
  },
  EJSON,
);
