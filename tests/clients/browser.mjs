// As much of a browser as Meteor's client code looks at: give it before that code is loaded.

import WebSocket from "ws";

const nowhere = { appendChild() {}, setAttribute() {}, addEventListener() {}, style: {} };

class LocalStorage {
  #items = new Map();
  getItem = (key) => this.#items.get(key) ?? null;
  setItem = (key, value) => void this.#items.set(key, String(value));
  removeItem = (key) => void this.#items.delete(key);
}

// SockJS asks for /sockjs/info by it, and for nothing else.
class XMLHttpRequest {
  open = (method, url) => Object.assign(this, { method, url });
  setRequestHeader() {}
  abort() {}
  async send() {
    const response = await fetch(this.url, { method: this.method }).catch(() => null);
    this.responseText = (await response?.text()) ?? "";
    Object.assign(this, { status: response?.status ?? 0, readyState: 4 });
    this.onreadystatechange?.();
  }
}

// `url` is the address of the page: the server's.
export function pretendToBeABrowser(url) {
  const location = new URL(url);
  const document = {
    ...nowhere,
    body: nowhere,
    location,
    readyState: "complete",
    createElement: () => ({ ...nowhere }),
    getElementsByTagName: () => ({ item: () => nowhere }),
  };
  // Node would not end while one is set, and a page never clears its own.
  const { setInterval } = globalThis;
  const globals = {
    setInterval: (...args) => setInterval(...args).unref(),
    window: globalThis,
    addEventListener() {},
    navigator: { userAgent: "Node" },
    localStorage: new LocalStorage(),
    document,
    location,
    WebSocket,
    XMLHttpRequest,
  };
  for (const [name, value] of Object.entries(globals)) {
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  }
}
