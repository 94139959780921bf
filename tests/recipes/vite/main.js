const { RESTED_URL, RESTED_WS_URL, RESTED_KEY } = import.meta.env;
const key = new URLSearchParams(location.search).get("key") ?? RESTED_KEY; // a test has a world of its own
const notes = `/my-app/notes?key=${key}`;
const setStatus = (text) => (document.querySelector("[role=status]").textContent = text);

async function show() {
  const records = await (await fetch(RESTED_URL + notes, { credentials: "include" })).json();
  const items = records.map(({ data }) => `<li>${data.text}</li>`);
  document.querySelector("ul").innerHTML = items.join("");
}

function listen() {
  const socket = new WebSocket(RESTED_WS_URL + notes);
  socket.onopen = () => show().then(() => setStatus("online"));
  socket.onmessage = show;
  socket.onclose = () => setStatus("offline") && setTimeout(listen, 200);
}
listen();
