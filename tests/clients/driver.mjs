// The common half of the client programs. Each line on stdin is a command, each line on stdout a report:
//
//   {"number": 1, "command": "subscribe", "params": [...]}     one command at a time, in order
//   {"reply": 1, "value": ...} or {"reply": 1, "error": ...}   how it ended
//   {"message": {"msg": "added", ...}}                         what the client was told by the server
//
// Values cross in EJSON's JSON form ({"$date": …}), whether the client itself reads EJSON or not.

import readline from "node:readline";

// Returns nothing: two of the clients drop an event listener that returns true.
const write = (report) => void process.stdout.write(JSON.stringify(report) + "\n");

// For clients that do not read EJSON: the JSON form is all they know.
export const plain = { toJSONValue: (value) => value, fromJSONValue: (value) => value };

// Reports one message, after the client has taken it in.
export const told = (message, ejson = plain) => write({ message: ejson.toJSONValue(message) });

// Serves stdin until it ends, then closes the client; the process ends when the client lets go of its socket.
//
// `client` has connect(), subscribe(name, ...params) -> id once ready, unsubscribe(id) -> once the server confirmed,
// call(name, ...params) -> result, documents() -> {collection: {id: fields}} and close(); each may return a promise.
export async function drive(client, ejson = plain) {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { number, command, params } = JSON.parse(line);
    try {
      const value = await client[command](...ejson.fromJSONValue(params));
      write({ reply: number, value: value === undefined ? null : ejson.toJSONValue(value) });
    } catch (error) {
      if (error instanceof Error) throw error; // a fault of the program itself, not the server's answer
      write({ reply: number, error });
    }
  }
  await client.close();
}
