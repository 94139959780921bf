import ReconnectingWebSocket from "reconnecting-websocket";

const after = (milliseconds) => new Promise((go) => setTimeout(go, milliseconds));

// Keeps a user's records current: backs off, logs in again where the token is over, and reads what it has missed.
export function keepCurrent({ url, wsUrl, logIn, show, wait = 1000, WebSocket = globalThis.WebSocket }) {
  const records = new Map();
  let token, reading;

  async function read() {
    const answer = await fetch(url, { headers: { Authorization: `Bearer ${token}` } });
    if (!answer.ok) return after(answer.headers.get("Retry-After") * 1000 || wait).then(read);
    records.clear();
    for (const record of await answer.json()) records.set(record.uniqueId, record);
    show([...records.values()]);
  }

  const address = async () => `${wsUrl}&accessToken=${(token ??= await logIn())}`;
  const socket = new ReconnectingWebSocket(address, [], {
    WebSocket,
    minReconnectionDelay: wait * (1 + Math.random()), // by chance, or all clients come at once
    reconnectionDelayGrowFactor: 2,
    maxReconnectionDelay: wait * 60,
  });
  socket.addEventListener("open", () => (reading = read())); // nobody says again what was said meanwhile
  socket.addEventListener("message", async ({ data }) => {
    await reading; // its answer may be older than the message
    const { type, record } = JSON.parse(data);
    if (type === "DELETE") records.delete(record.uniqueId);
    else records.set(record.uniqueId, record);
    show([...records.values()]);
  });
  socket.addEventListener("close", ({ reason }) => {
    if (reason.includes("token")) token = undefined; // expired or revoked: the next try has another
  });
  return socket;
}
