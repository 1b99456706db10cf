// simpleddp over a raw WebSocket. With RECONNECT=1 it connects again by itself when the connection is lost.

import EJSON from "ejson";
import SimpleDDP from "simpleddp";
import WebSocket from "ws";
import { drive, told } from "./driver.mjs";

const url = process.env.SERVER_URL.replace(/^http/, "ws") + "/websocket";
const ddp = new SimpleDDP({
  endpoint: url,
  SocketConstructor: WebSocket,
  autoConnect: false,
  autoReconnect: process.env.RECONNECT === "1",
  reconnectInterval: 200,
});
for (const msg of ["added", "changed", "removed", "ready", "nosub", "result", "updated", "error"]) {
  ddp.on(msg, (message) => told(message, EJSON));
}

// simpleddp looks at the outcome of a subscription twice: once for us and once, when it starts it, for nobody.
process.on("unhandledRejection", (reason) => {
  if (reason instanceof Error) throw reason;
});

await drive(
  {
    connect: () => ddp.connect(),
    subscribe: async (name, ...params) => {
      const subscription = ddp.subscribe(name, ...params);
      await subscription.ready();
      return subscription.subscriptionId;
    },
    unsubscribe: (id) => ddp.subs.find((subscription) => subscription.subscriptionId === id).stop(),
    call: (name, ...params) => ddp.call(name, ...params),
    documents: () =>
      Object.fromEntries(
        Object.entries(ddp.collections).map(([name, documents]) => [
          name,
          Object.fromEntries(documents.map(({ id, ...fields }) => [id, fields])),
        ]),
      ),
    close: () => ddp.disconnect(),
  },
  EJSON,
);
