// How an app speaks to the chosen endpoint, ready to copy. What is over is not in it: a token goes along while it is valid.

import { acting, chosenEndpoint, liveToken } from "./acting.js";
import { $, copy, make, show } from "./dom.js";
import { address } from "./speak.js";
import { onChange } from "./state.js";

function snippets(endpoint, token) {
  const url = address(endpoint);
  const socket = address(endpoint, { socket: true });
  const withToken = address(endpoint, { socket: true, accessToken: token });
  const bearer = token ? ` \\\n  -H 'Authorization: Bearer ${token}'` : "";
  const headers = token ? `, { headers: { Authorization: "Bearer ${token}" } }` : "";
  const data = endpoint.authentication ? '{"username": "eve", "password": "elder"}' : '{"hello": "world"}';
  return {
    URL: url,
    "WebSocket URL": socket,
    ...(token && { "WebSocket URL with token": withToken }),
    curl: `curl '${url}'${bearer} \\\n  -H 'Content-Type: application/json' -d '${data}'`,
    fetch: `const answer = await fetch(${JSON.stringify(url)}${headers});\nconsole.log(await answer.json());`,
    axios: `const { data } = await axios.get(${JSON.stringify(url)}${headers});\nconsole.log(data);`,
    WebSocket: `const socket = new WebSocket(${JSON.stringify(withToken)});\nsocket.onmessage = (message) => console.log(JSON.parse(message.data));\nsocket.onclose = (event) => console.log(event.code, event.reason);`,
  };
}

function noteOn(endpoint, token) {
  const { name } = acting();
  if (token) return `With the token of ${name}.`;
  if (name) return `The token of ${name} is over, so it is not in here; log in again for one that is valid.`;
  return endpoint?.secure ? "Only logged-in users are served here: act as one of them, and the token is in here." : "";
}

let copied = ""; // what was said of the last copy: the status stands behind the dialog

async function copyOne(name, text) {
  await copy(name, text);
  copied = $("said").textContent;
  showNote();
}

function showNote() {
  $("connect-note").textContent = [copied, noteOn(chosenEndpoint(), liveToken())].filter(Boolean).join(" ");
}

onChange(() => {
  const endpoint = chosenEndpoint();
  const token = liveToken();
  $("connect-open").disabled = !endpoint;
  $("connect-title").textContent = `Use ${endpoint?.name ?? "it"}`;
  showNote();
  show($("snippets"), JSON.stringify([endpoint?.name, endpoint?.key, endpoint?.authentication, token]), () =>
    Object.entries(endpoint ? snippets(endpoint, token) : {}).map(([name, text]) => {
      const pre = make("pre", { text, tabIndex: 0, role: "region", "aria-label": `${name}, ready to copy` });
      const button = make("button", { type: "button", text: `Copy ${name}`, onclick: () => copyOne(name, text) });
      return make("div", { class: "snippet" }, make("div", {}, make("strong", { class: "grow", text: name }), button), pre);
    }),
  );
});

$("connect-open").addEventListener("click", () => {
  copied = "";
  showNote();
  $("connect").showModal();
});
