// A world of its own in the emulator: data, users, clock and faults that no other test sees.
export async function openWorld(host, key) {
  const send = async (path, content) => {
    const headers = { "Content-Type": "application/json" };
    const body = JSON.stringify(content);
    const answer = await fetch(`http://${host}${path}?key=${key}`, { method: "POST", headers, body });
    if (!answer.ok) throw new Error(`${path}: ${await answer.text()}`);
    return answer.json();
  };
  const control = (verb, args = {}) => send(`/__emulator__/${verb}`, args);
  const store = (endpoint, data) => send(`/api/1/ce/${endpoint}`, data);
  const url = (endpoint) => `http://${host}/api/1/ce/${endpoint}?key=${key}`;
  const wsUrl = (endpoint) => url(endpoint).replace("http:", "ws:");

  await control("fork", { key }); // one that is there begins anew
  return { key, url, wsUrl, store, control };
}
