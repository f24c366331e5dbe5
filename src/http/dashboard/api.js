// Talks to the server: requests with the API key, event streams, and whether it is there at all.

import { noteServerTime } from "./dom.js";

const KEY = "api-key";
const LONGEST_PAUSE = 5000;

// An answer that says what was wrong.
export class Problem extends Error {
  constructor(status, body) {
    const detail = body?.detail;
    const faults = Array.isArray(detail) ? detail : [];
    const sentence = typeof detail === "string" ? detail : faults.map((fault) => `${fault.loc.slice(1).join(".")}: ${fault.msg}`).join("; ");
    super(sentence || `The server answered ${status}.`);
    this.status = status;
    this.faults = faults;
  }
}

export const storedKey = () => sessionStorage.getItem(KEY);

// Why the stored key may change nothing; `undefined` if it may, or if no key is stored.
let refusal;
export const whyReadOnly = () => refusal;

// Finds out what the stored key may do. Only the method counts here, so that the empty submission is
// refused in any case.
export async function learnAccess() {
  const key = storedKey();
  refusal = undefined;
  if (isKey(key)) {
    const headers = { Authorization: `Bearer ${key}` };
    const answer = await fetch("/tasks?dry_run=true", { method: "POST", headers }).catch(() => undefined);
    if (answer?.status === 403) refusal = (await answer.json().catch(() => ({}))).detail ?? "This API key is read-only.";
  }
  const badge = document.getElementById("read-only");
  badge.hidden = !refusal;
  badge.title = refusal ?? "";
}

// A header takes no other characters, and no key has any.
const isKey = (text) => /^[\x21-\x7e]+$/.test(text ?? "");

// Names a request, so that sent twice it counts once. Only secure pages have `crypto.randomUUID`.
export function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function forgetKey() {
  sessionStorage.removeItem(KEY);
  location.reload();
}

// Everybody who is refused waits for the same answer of the user.
let asking;
function askForKey(why) {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("key");
    const field = document.getElementById("key-value");
    document.getElementById("key-text").textContent = why;
    field.value = "";
    // Without a key there is nothing to see behind it.
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => {
      asking = undefined;
      sessionStorage.setItem(KEY, field.value.trim());
      document.getElementById("forget-key").hidden = false;
      learnAccess().then(resolve);
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

// Sends a request; the answer may be any of the API's. Asks for a key where one is wanted.
export async function send(path, options = {}) {
  const key = storedKey();
  const headers = new Headers(options.headers);
  if (isKey(key)) headers.set("Authorization", `Bearer ${key}`);
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name !== "AbortError") serverIsGone();
    throw error;
  }
  if (response.status === 401) {
    const problem = await response.json().catch(() => ({}));
    // Another request may have brought a newer key meanwhile.
    if (storedKey() === key) await askForKey(key ? problem.detail : "This server asks for an API key.");
    options.signal?.throwIfAborted();
    return send(path, options);
  }
  const date = response.headers.get("Date");
  if (date) noteServerTime(date);
  return response;
}

async function checked(path, options) {
  const response = await send(path, options);
  if (!response.ok) throw new Problem(response.status, await response.json().catch(() => null));
  return response;
}

export async function get(path, signal) {
  return (await checked(path, { signal })).json();
}

// A page of a list and the path of the next one.
export async function getPage(path, signal) {
  const response = await checked(path, { signal });
  const next = /<([^>]*)>; *rel="next"/.exec(response.headers.get("Link") ?? "")?.[1];
  return { items: await response.json(), next };
}

export async function change(method, path, body, headers = {}, signal = undefined) {
  const json = body === undefined ? {} : { "Content-Type": "application/json" };
  const options = { method, headers: { ...json, ...headers }, body: body === undefined ? undefined : JSON.stringify(body), signal };
  const response = await checked(path, options);
  return { status: response.status, ...(await response.json()) };
}

export const cancel = (id) => change("DELETE", `/tasks/${id}`);
export const retry = (id, key) => change("POST", `/tasks/${id}/retry`, undefined, { "Idempotency-Key": key });

// --- Whether the server is there. ---

let gone = false;
const watchers = new Set();

// Calls back each time the server is there again; returns how to stop that.
export function whenBack(callback) {
  watchers.add(callback);
  return () => watchers.delete(callback);
}

function serverIsGone() {
  if (gone) return;
  gone = true;
  const banner = document.getElementById("gone");
  banner.textContent = "The server does not answer. What you see is from before; trying to reach it again…";
  banner.hidden = false;
  probe(250);
}

async function probe(pause) {
  await wait(pause);
  try {
    const response = await fetch("/health/live", { cache: "no-store" });
    if (!response.ok) throw new Error("not yet");
  } catch {
    probe(Math.min(2 * pause, LONGEST_PAUSE));
    return;
  }
  gone = false;
  document.getElementById("gone").hidden = true;
  for (const callback of [...watchers]) callback();
}

const wait = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });

// --- Event streams. By fetch and not by EventSource, which can send no key. ---

// Reads a stream until `signal` says stop, and again where it breaks off. `on` has `event(name,
// task)`, `open()` for each time it begins, `end()` when the server says there is no more to come,
// and `fail(problem)` when it will not do. Nothing is read while nobody looks: a browser has few
// connections to one server.
export async function follow(path, signal, on) {
  let last;
  while (!signal.aborted) {
    await whenVisible(signal);
    const look = new AbortController();
    const stop = () => look.abort();
    const hide = () => { if (document.hidden) stop(); };
    signal.addEventListener("abort", stop);
    document.addEventListener("visibilitychange", hide);
    try {
      const headers = last ? { "Last-Event-ID": last } : {};
      const response = await send(path, { signal: look.signal, headers });
      if (response.status === 204) return void on.end();
      if (!response.ok && response.status !== 503) {
        return void on.fail(new Problem(response.status, await response.json().catch(() => null)));
      }
      if (response.ok) {
        on.open();
        for await (const event of events(response.body)) {
          if (event.id) last = event.id;
          if (event.name) on.event(event.name, JSON.parse(event.data));
        }
      }
    } catch (error) {
      // The connection broke, or nobody looks any more. Only a request tells whether it is the server.
      if (error instanceof SyntaxError) throw error;
    } finally {
      signal.removeEventListener("abort", stop);
      document.removeEventListener("visibilitychange", hide);
    }
    if (!signal.aborted) await wait(500);
  }
}

// Resolves when somebody looks, or `signal` says stop.
export function whenVisible(signal) {
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look);
    look();
  });
}

// The events in a body, as the HTML standard has them (lines end with a line feed here).
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) yield parse(block);
  }
}

function parse(block) {
  const event = { data: "" };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue;
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (line.startsWith("id:")) event.id = value;
    else if (line.startsWith("event:")) event.name = value;
    else if (line.startsWith("data:")) event.data += value;
  }
  return event;
}
