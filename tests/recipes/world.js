// @ts-check

/**
 * What the verbs of the control interface take; an editor completes them.
 *
 * @typedef {"status" | "delay" | "cut" | "refuse" | "close" | "abort" | "silence" | "messages" | "outage"} Kind
 * @typedef {{ endpoint?: string, method?: string, status?: number, since?: number, from?: string }} Requests
 * @typedef {{ endpoint?: string, type?: string, since?: number, from?: string }} Messages
 * @typedef {{ endpoint?: string, username?: string, since?: number }} Recoveries
 * @typedef {{
 *   "fork": { key: string, data?: object },
 *   "drop": { key: string },
 *   "sign-in": { endpoint: string, username: string, password?: string },
 *   "change-project": { project?: string, name?: string, key?: string, masterKey?: string, allowedOrigins?: string[],
 *     disallowNoOrigin?: boolean, tokenTtl?: number, resetTemplates?: Record<string, string> },
 *   "change-endpoint": { name: string, secure?: boolean, authentication?: boolean, othersCanRead?: boolean,
 *     othersCanUpdate?: boolean, othersCanDelete?: boolean, description?: string },
 *   "delete-endpoint": { name: string },
 *   "put-record": { endpoint: string, data: unknown, uniqueId?: string },
 *   "delete-record": { endpoint: string, uniqueId: string },
 *   "expire-tokens": { username?: string, token?: string },
 *   "close-listeners": { code?: number, reason?: string, endpoint?: string, username?: string, listener?: number },
 *   "advance": { seconds: number },
 *   "set-time": { time: string },
 *   "freeze": {},
 *   "unfreeze": {},
 *   "reset": {},
 *   "checkpoint": { name: string },
 *   "restore": { name: string },
 *   "undo": { number?: number },
 *   "load": { data: object },
 *   "faults": { kind: Kind, endpoint?: string, method?: string, username?: string, listener?: number, times?: number,
 *     for?: number, chance?: number, seed?: number, status?: number, body?: unknown, headers?: Record<string, string>,
 *     seconds?: number, when?: "before" | "after" | "amid", code?: number, reason?: string, what?: string,
 *     mode?: "refuse" | "hang" | "reset" },
 *   "wait": { requests?: Requests, messages?: Messages, recoveries?: Recoveries, count?: number, timeout?: number },
 *   "settle": { timeout?: number },
 * }} Verbs
 * @typedef {"status" | "listeners" | "records" | "faults" | "requests" | "messages" | "recoveries" | "coverage" |
 *   "mails" | "changes" | "data"} Report
 */

/**
 * A world of its own in the emulator: data, users, clock and faults that no other test sees.
 *
 * @param {string} host with its port, as RESTED_HOST has it
 * @param {string} key of your choice; a world that has it begins anew
 * @param {string} [controlToken] where the emulator wants one, as beyond loopback
 */
export async function openWorld(host, key, controlToken) {
  /** @type {(path: string, content?: unknown, token?: string, filter?: Record<string, string>) => Promise<any>} */
  const send = async (path, content, token, filter) => {
    const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
    const sent = content === undefined ? { headers } : { headers, method: "POST", body: JSON.stringify(content) };
    const answer = await fetch(`http://${host}${path}?${new URLSearchParams({ key, ...filter })}`, sent);
    if (!answer.ok) throw new Error(`${path}: ${await answer.text()}`);
    return answer.json();
  };
  /**
   * @type {<V extends keyof Verbs>(verb: V, ...args: {} extends Verbs[V] ? [Verbs[V]?] : [Verbs[V]]) => Promise<any>}
   */
  const control = (verb, ...args) => send(`/__emulator__/${verb}`, args[0] ?? {}, controlToken);
  /** @param {Report} name @param {Record<string, string>} [filter] as `{ endpoint: "my-app/notes" }` */
  const report = (name, filter) => send(`/__emulator__/${name}`, undefined, controlToken, filter);
  /** @param {string} endpoint @param {unknown} data @param {string} [token] whose record it is to be */
  const store = (endpoint, data, token) => send(`/api/1/ce/${endpoint}`, data, token);
  /** @param {string} endpoint */
  const url = (endpoint) => `http://${host}/api/1/ce/${endpoint}?key=${key}`;
  /** @param {string} endpoint */
  const wsUrl = (endpoint) => url(endpoint).replace("http:", "ws:");

  await control("fork", { key });
  return { key, url, wsUrl, store, control, report };
}
