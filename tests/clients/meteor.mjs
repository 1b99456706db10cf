// Meteor's own client: its DDP connection, Minimongo, stubs and accounts, as Meteor 1.3.5 bundles them for browsers.
//
// Its scripts want to be run in the global scope, in their order.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import vm from "node:vm";
import { pretendToBeABrowser } from "./browser.mjs";
import { drive, told } from "./driver.mjs";

const url = process.env.SERVER_URL;
pretendToBeABrowser(url);
globalThis.__meteor_runtime_config__ = { DDP_DEFAULT_CONNECTION_URL: url, ROOT_URL: url, meteorEnv: {} };
const require = createRequire(import.meta.url);
for (const name of ["meteor-client-side", "accounts-base-client-side", "accounts-password-client-side"]) {
  const path = require.resolve(`${name}/dist/${name}.bundle.js`);
  vm.runInThisContext(readFileSync(path, "utf8"), { filename: path });
}
const { Accounts, Meteor, Mongo } = globalThis;
const { EJSON } = globalThis.Package.ejson;
const connection = Meteor.connection;

// Every collection that the tests look at has to be declared, as in an application.
const names = ["bookstore.book", "bookstore.author", "things", "conformance.items"];
const collections = Object.fromEntries(names.map((name) => [name, new Mongo.Collection(name)]));
collections.users = Meteor.users;

// Stubs: what the client thinks that the server's methods will do.
const items = collections["conformance.items"];
Meteor.methods({
  "conformance.insert": (group, text) => items.insert({ group, text }),
  "conformance.update": (id, text) => items.update(id, { $set: { text } }),
  "conformance.remove": (id) => items.remove(id),
});

const unsubscribed = new Map(); // subscription id -> the function to call when the server has confirmed its end
connection._stream.on("message", (text) => {
  const message = EJSON.parse(text);
  if (message.msg === "nosub") unsubscribed.get(message.id)?.();
  if (message.msg) told(message, EJSON);
});

// An error as it was on the wire.
const wire = ({ isClientSafe, error, reason, details, message, errorType }) => {
  const known = { isClientSafe, error, reason, details, message, errorType };
  return Object.fromEntries(Object.entries(known).filter(([, value]) => value !== undefined));
};

// Calls a function that takes a callback (error, result) last, as Meteor's do.
const promised = (start) =>
  new Promise((resolve, reject) => start((error, result) => (error ? reject(wire(error)) : resolve(result))));

const until = (condition) =>
  new Promise((resolve) => {
    const look = () => (condition() ? resolve() : setTimeout(look, 5));
    look();
  });

// The client takes in what it is told some milliseconds later, many messages at once.
const settled = () => until(() => connection._bufferedWritesFlushHandle === null);

const subscriptions = new Map();
const observed = {}; // collection -> what its observer was told: [["added", id, fields], …]

await drive(
  {
    connect: () => until(() => Meteor.status().connected),
    subscribe: (name, ...params) =>
      new Promise((resolve, reject) => {
        const handle = Meteor.subscribe(name, ...params, {
          onReady: () => {
            subscriptions.set(handle.subscriptionId, handle);
            resolve(handle.subscriptionId);
          },
          onStop: (error) => error && reject(wire(error)),
        });
      }),
    unsubscribe: (id) =>
      new Promise((resolve) => {
        unsubscribed.set(id, resolve);
        subscriptions.get(id).stop();
      }),
    call: (name, ...params) => promised((callback) => Meteor.apply(name, params, {}, callback)),
    documents: async () => {
      await settled();
      return Object.fromEntries(
        Object.entries(collections).map(([name, collection]) => [
          name,
          Object.fromEntries(collection.find().map(({ _id, ...fields }) => [_id, fields])),
        ]),
      );
    },
    close: () => Meteor.disconnect(),

    // What other clients do not have.
    observe: (name) => {
      const events = (observed[name] = []);
      collections[name].find().observeChanges({
        added: (id, fields) => events.push(["added", id, fields]),
        changed: (id, fields) => events.push(["changed", id, fields]),
        removed: (id) => events.push(["removed", id]),
      });
    },
    // Starts a method, and tells what its stub has done before anything came from the server.
    callAndLook: (name, ...params) => {
      const already = Object.values(observed).flat().length;
      const outcome = promised((callback) => Meteor.apply(name, params, {}, callback));
      const byStub = Object.values(observed).flat().slice(already);
      return outcome.then((result) => ({ byStub, result }));
    },
    observed: async (name) => {
      await settled();
      return observed[name];
    },
    signUp: (options) => promised((callback) => Accounts.createUser(options, callback)),
    login: (user, password) => promised((callback) => Meteor.loginWithPassword(user, password, callback)),
    logout: () => promised((callback) => Meteor.logout(callback)),
    // Whoever is logged in, once a login under way has ended.
    user: async () => {
      await until(() => !Meteor.loggingIn());
      await settled();
      return { id: Meteor.userId(), username: Meteor.user()?.username ?? null };
    },
    // Loses the socket, as a network does, and waits until the client is connected again.
    lose: async () => {
      const session = connection._lastSessionId;
      connection._stream.socket.close();
      await until(() => Meteor.status().connected && connection._lastSessionId !== session);
    },
  },
  EJSON,
);
