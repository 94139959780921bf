// The two things this page speaks: the control interface, and the emulated API like any app.

export const WORLD = new URLSearchParams(location.search).get("key"); // the world it is about, the default one without
const TOKEN = "rested-emulator-control-token";

// The banner's address brings the control token behind #, which no server gets to see; it goes at once.
const brought = new URLSearchParams(location.hash.slice(1)).get("token");
if (brought) {
  sessionStorage.setItem(TOKEN, brought);
  history.replaceState(null, "", location.pathname + location.search);
}

export class Refused extends Error {
  constructor(status, body) {
    const { message = "refused", hint = "" } = body ?? {};
    const remedy = hint.replace(/ Arguments of [a-z-]+: .*$/, ""); // which are for who writes a call by hand
    super(`${status} ${message} ${remedy}`.trim());
    Object.assign(this, { status, title: `${status} ${message}`, hint: remedy });
  }
}

export function keepToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

// JSON as a value in which numbers stay as they were written, where JavaScript would round or shorten them.
const INEXACT = /\d{16}|\d\.\d*0(?!\d)|\d[eE]/;
const asWritten = (_, value, { source }) => (typeof value === "number" && String(value) !== source ? JSON.rawJSON(source) : value);
export function parse(text) {
  return JSON.rawJSON && INEXACT.test(text) ? JSON.parse(text, asWritten) : JSON.parse(text);
}

async function control(method, verb, query, body, signal, kind = JSON.parse) {
  const parameters = new URLSearchParams(query);
  if (WORLD) parameters.set("key", WORLD);
  const headers = { "Content-Type": "application/json" };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  const url = `/__emulator__/${verb}?${parameters}`;
  const answer = await answerTo(url, { method, headers, body, signal });
  const text = await answer.text();
  if (!answer.ok) throw new Refused(answer.status, JSON.parse(text));
  return kind(text);
}

// The state as a data file and back, as text: JavaScript would round long numbers.
export const saveData = () => control("GET", "data", {}, undefined, undefined, String);
export const loadData = (text) => control("POST", "load", {}, `{"data": ${text}}`);

export const look = (verb, query = {}) => control("GET", verb, query);
export const act = (verb, args = {}) => control("POST", verb, {}, JSON.stringify(args));
export const lookAtRecords = (endpoint) => control("GET", "records", { endpoint }, undefined, undefined, parse);
export const wait = (args, signal) =>
  control("POST", "wait", {}, JSON.stringify(args), signal, (text) => ({ ...JSON.parse(text), messages: parse(text).messages }));
export const clear = (verb, query = {}) => control("DELETE", verb, query);

// The address of an endpoint, as an app has it.
export function address(endpoint, { socket = false, ...parameters } = {}) {
  const base = socket ? location.origin.replace(/^http/, "ws") : location.origin;
  const query = Object.entries({ key: WORLD ?? endpoint.key, ...parameters }).filter(([, value]) => value != null);
  const parts = query.map(([name, value]) => `${name}=${encodeURIComponent(value).replaceAll("'", "%27")}`);
  return `${base}/api/1/ce/${endpoint.name}?${parts.join("&")}`;
}

// A request of this page; what browsers say where no answer comes, each in its own words, tells nobody anything.
async function answerTo(url, options) {
  try {
    return await fetch(url, { ...options, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("No answer came: the emulator is away, or a fault has cut it off.");
  }
}

const isJson = (answer) => /json/.test(answer.headers.get("content-type"));

// What the owner does with a record, whoever's it is; the text of its data goes as it is.
export const putRecord = ({ name }, data, uniqueId) =>
  control("POST", "put-record", {}, `${JSON.stringify({ endpoint: name, uniqueId }).slice(0, -1)}, "data": ${data}}`);

// A control call as a person would make it.
export function asCurl(verb, args) {
  const query = WORLD ? `?key=${encodeURIComponent(WORLD)}` : "";
  const token = sessionStorage.getItem(TOKEN) ? ' -H "Authorization: Bearer $RESTED_EMULATOR_CONTROL_TOKEN"' : "";
  const body = JSON.stringify(args).replaceAll("'", "'\\''");
  return `curl -H 'Content-Type: application/json'${token} -d '${body}' '${location.origin}/__emulator__/${verb}${query}'`;
}

// One request to the emulated API; the text of a body goes as it is, so that the service judges it.
export async function request(endpoint, { method = "GET", text, type = "application/json", token, ...parameters } = {}) {
  const headers = {};
  if (text !== undefined) headers["Content-Type"] = type;
  if (token) headers.Authorization = `Bearer ${token}`;
  const url = address(endpoint, { ...parameters, from: "console" });
  const answer = await answerTo(url, { method, headers, body: text });
  const answered = await answer.text();
  if (!answer.ok) throw new Refused(answer.status, isJson(answer) ? parse(answered) : null);
  return parse(answered);
}
