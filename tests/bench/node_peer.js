// A bare Node server with the emulator's promises and nothing else: the native limit.
//
//     node node_peer.js DATA PORT
//
// DATA has a record in JSON on each line. A change is in DATA.journal before it is answered, and goes to every
// listener afterwards.
"use strict";

const fs = require("fs");
const http = require("http");
const { randomUUID } = require("crypto");
const { WebSocketServer } = require("ws");

const [data, port] = process.argv.slice(2);
const records = new Map();
for (const line of fs.readFileSync(data, "utf8").split("\n")) if (line) records.set(JSON.parse(line).uniqueId, line);
if (fs.existsSync(`${data}.journal`)) redo(fs.readFileSync(`${data}.journal`, "utf8"));
const journal = fs.openSync(`${data}.journal`, "a");

const server = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => perform(request.method, request.url.slice("/plants/".length), Buffer.concat(parts), response));
});
const sockets = new WebSocketServer({ server, perMessageDeflate: false });
server.listen(Number(port), "127.0.0.1");

function redo(lines) {
  for (const line of lines.split("\n").slice(0, -1)) {
    const [id, record] = JSON.parse(line);
    if (record) records.set(id, JSON.stringify(record));
    else records.delete(id);
  }
}

function perform(method, id, body, response) {
  if (method === "GET" && !id) return answer(response, 200, `[${[...records.values()].join(",")}]`);
  if (method !== "POST" && !records.has(id)) return answer(response, 404, "{}");
  if (method === "GET") return answer(response, 200, records.get(id));
  const record = method === "DELETE" ? records.get(id) : written(id || randomUUID().replaceAll("-", ""), body);
  const { uniqueId } = JSON.parse(record);
  fs.writeSync(journal, `["${uniqueId}",${method === "DELETE" ? "null" : record}]\n`);
  if (method === "DELETE") records.delete(uniqueId);
  else records.set(uniqueId, record);
  answer(response, 200, record);
  for (const socket of sockets.clients) socket.send(`{"type":"${method}","record":${record}}`);
}

function written(uniqueId, body) {
  const now = new Date().toISOString();
  return JSON.stringify({ data: JSON.parse(body), uniqueId, updatedAt: now, createdAt: now });
}

function answer(response, status, body) {
  response.writeHead(status, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) });
  response.end(body);
}
