// ddp (node-ddp-client), which asks /sockjs/info how to connect.

import { createRequire } from "node:module";
import DDPClient from "ddp";
import { drive, told } from "./driver.mjs";

// The client's own EJSON, so that its dates and binaries are the ones it knows.
const EJSON = createRequire(import.meta.resolve("ddp"))("ddp-ejson");

const { hostname, port } = new URL(process.env.SERVER_URL);
const ddp = new DDPClient({ host: hostname, port: Number(port), useSockJs: true, autoReconnect: false });
const stopped = new Map(); // subscription id -> the function to call when the server has confirmed its end

ddp.on("message", (data) => {
  const message = EJSON.parse(data);
  if (message.msg === "nosub") stopped.get(message.id)?.();
  told(message, EJSON);
});

await drive(
  {
    connect: () =>
      new Promise((resolve, reject) => ddp.connect((reason) => (reason ? reject({ reason }) : resolve()))),
    subscribe: (name, ...params) =>
      new Promise((resolve, reject) => {
        const id = ddp.subscribe(name, params, (error) => (error ? reject(error) : resolve(id)));
      }),
    unsubscribe: (id) =>
      new Promise((resolve) => {
        stopped.set(id, resolve);
        ddp.unsubscribe(id);
      }),
    call: (name, ...params) =>
      new Promise((resolve, reject) => {
        let outcome;
        let updated = false;
        const finish = () => outcome && updated && outcome();
        ddp.call(
          name,
          params,
          (error, result) => {
            outcome = () => (error ? reject(error) : resolve(result));
            finish();
          },
          () => {
            updated = true;
            finish();
          },
        );
      }),
    documents: () =>
      Object.fromEntries(
        Object.entries(ddp.collections).map(([name, documents]) => [
          name,
          Object.fromEntries(Object.entries(documents).map(([id, { _id, ...fields }]) => [id, fields])),
        ]),
      ),
    close: () => ddp.close(),
  },
  EJSON,
);
