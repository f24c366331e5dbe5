// Elements and how things are written in them. All text goes in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// An element with these attributes (`onclick` and its like are listeners) and children.
export function el(name, properties, ...children) {
  return fill(document.createElement(name), properties, children);
}

export function svg(name, properties, ...children) {
  return fill(document.createElementNS(SVG, name), properties, children);
}

// Sets the text only where it differs, so that a selection in it stays.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Says something in passing, to the eye and to screen readers.
let hide;
export function say(text, isError = false) {
  const place = document.getElementById("said");
  place.textContent = text;
  place.classList.toggle("error", isError);
  clearTimeout(hide);
  hide = setTimeout(() => { place.textContent = ""; }, isError ? 12000 : 6000);
}

export const FINAL = ["completed", "failed", "cancelled"];
export const STATUSES = ["pending", "running", ...FINAL];

export const isFinal = (task) => FINAL.includes(task.status);
export const isStopping = (task) => Boolean(task.cancel_requested_at) && !isFinal(task);

// A description: what stands between backticks in it is code.
export function prose(text) {
  return text.split("`").map((part, index) => (index % 2 ? el("code", {}, part) : part));
}

// The coloured word for where a task stands.
export function statusPill(task) {
  const stopping = isStopping(task);
  const classes = `pill ${stopping ? "stopping" : task.status}`;
  return el("span", { class: classes }, stopping ? "stopping" : task.status);
}

export function progressBar(task) {
  const label = `${percent(task)} done`;
  return el("progress", { max: 100, value: task.progress, class: task.status, "aria-label": label });
}

export const percent = (task) => `${Math.floor(task.progress)} %`;

// The server's clock, which may differ from ours.
let ahead = 0;
export function noteServerTime(header) {
  const difference = Date.parse(header) - Date.now();
  // The header has whole seconds.
  if (Math.abs(difference) > 2000) ahead = difference;
  else if (!Number.isNaN(difference)) ahead = 0;
}
export const now = () => Date.now() + ahead;

// Seconds as people say them: 40 ms, 2.5 s, 12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h.
export function duration(seconds) {
  if (!(seconds >= 0)) return "";
  if (seconds < 1) return `${Math.round(1000 * seconds)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const [d, h, m, s] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60, whole % 60];
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  if (m) return `${m} min ${s} s`;
  return `${s} s`;
}

export function elapsed(task) {
  if (!task.started_at) return "";
  const end = task.completed_at ? Date.parse(task.completed_at) : now();
  // An attempt that waits for its next one is not running.
  if (task.status === "pending") return "";
  return duration(Math.max(0, (end - Date.parse(task.started_at)) / 1000));
}

export function remaining(task) {
  if (task.status !== "running" || task.eta_seconds === undefined) return "";
  const left = task.eta_seconds - (now() - Date.parse(task.updated_at)) / 1000;
  if (left <= 0) return "any moment";
  // An estimate of hours needs no seconds.
  return left < 1 ? "1 s" : duration(left < 600 ? Math.round(left) : 60 * Math.round(left / 60)).replace(/ min 0 s$/, " min").replace(".0 s", " s");
}

// What a task says of itself. Of a pending one that has failed before, only why: its next attempt is counted
// down to.
export function standing(task) {
  if (!task.waiting_because) return task.message;
  return task.message.replace(/^(Attempt \d+ of \d+ failed), next in [\d.]+ s: /, "$1: ");
}

// Why a pending task waits, in words.
export function waiting(task) {
  const why = task.status === "pending" && task.waiting_because;
  if (!why) return "";
  const at = /^(scheduled for|retry at) (\S+)$/.exec(why);
  if (at) {
    const left = (Date.parse(at[2]) - now()) / 1000;
    const what = at[1] === "retry at" ? "Next attempt" : "Starts";
    return left < 1 ? `${what} any moment` : `${what} in ${duration(Math.ceil(left)).replace(/\.0 s$/, " s")}`;
  }
  const full = /^(\d+) of (\d+) (?:(\S+) )?tasks running$/.exec(why);
  if (full) return `Waiting for a free ${full[3] ? `${full[3]} slot` : "slot"} (${full[1]} of ${full[2]} busy)`;
  return why[0].toUpperCase() + why.slice(1);
}

const TIME = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "numeric", minute: "2-digit" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

// A moment: the time for today, else the day too; all of it in the tooltip.
export function moment(text) {
  const date = new Date(text);
  const today = date.toDateString() === new Date(now()).toDateString();
  return el("time", { datetime: text, title: FULL.format(date) }, (today ? TIME : DAY).format(date));
}

export function fullMoment(text) {
  return el("time", { datetime: text, title: text }, FULL.format(new Date(text)));
}

export function bytes(count) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) { count /= 1000; unit += 1; }
  return `${unit ? count.toFixed(1) : count} ${units[unit]}`;
}

export const taskPath = (id) => `/dashboard/tasks/${encodeURIComponent(id)}`;

// A tag as a link to the tasks that have it.
export function tagLink(key, value) {
  const query = new URLSearchParams([[`tag.${key}`, value]]);
  return el("a", { class: "tag", href: `/dashboard?${query}` }, value === "" ? key : `${key}=${value}`);
}
