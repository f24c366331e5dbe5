// One task: where it stands, what it was given, how it went, what it made.

import { actionButton, cancelOne, copyButton, curlFor, retryOne, submissionOf } from "./actions.js";
import { Problem, follow, get, whenBack } from "./api.js";
import { duration, el, elapsed, fullMoment, isFinal, isStopping, percent, progressBar, remaining, setText, standing, statusPill, tagLink, taskPath, waiting } from "./dom.js";
import { logPanel } from "./log.js";
import { outputPanel } from "./output.js";

const TICK_EVERY = 250;
// Why a task waits changes without any event of its own.
const ASK_WHY_EVERY = 3000;

export function taskView(place, signal, id, go) {
  let task;
  // What was seen of each attempt while this page was open; the server keeps the latest.
  const attempts = new Map();
  const parts = new Map();
  const title = el("h1", {}, "Task");
  const times = el("span", { class: "times" });
  const waits = el("p", { class: "hint waits" });
  place.append(title, el("p", { class: "note" }, "Loading…"));

  // A part of the page that is made anew only when what it shows has changed, so that what is
  // selected or scrolled in the others stays.
  function part(name, shows, build) {
    const key = JSON.stringify(shows);
    const known = parts.get(name);
    if (known?.key === key) return known.element;
    const element = known?.element ?? el("div", { class: `part ${name}` });
    parts.set(name, { key, element });
    const focused = element.contains(document.activeElement);
    element.replaceChildren(...build().filter(Boolean));
    if (focused) (element.querySelector("button:not([disabled]), a") ?? title).focus();
    return element;
  }

  function draw() {
    const elements = [
      part("head", [task.status, isStopping(task)], head),
      part("now", [task.status, task.progress, task.message, task.error, task.cancel_requested_at, task.waiting_because], now),
      part("error", [task.error], () => task.error === null ? [] : [panel("Error", copyButton(() => task.error), el("pre", { class: "error-text", tabindex: 0, "aria-label": "Error" }, task.error))]),
      part("result", [task.result], () => jsonPanel("Result", task.result)),
      part("output", [task.status, task.output_file_path], () => task.status === "completed" && task.output_file_path !== null ? [outputPanel(task, signal)] : []),
      part("log", [isFinal(task)], () => [logPanel(task, signal)]),
      part("parameters", [task.parameters], () => jsonPanel("Parameters", task.parameters)),
    ];
    const side = [
      part("timeline", [[...attempts], task.started_at, task.completed_at, task.status, task.cancel_requested_at, task.attempt, task.error], () => [panel("Timeline", null, timeline())]),
      part("details", [task.attempt, task.retried_by], () => [panel("Details", null, details())]),
    ];
    if (!place.querySelector(".columns")) {
      place.replaceChildren(elements[0], elements[1], el("div", { class: "columns" }, el("div", { class: "main-column" }, elements.slice(2)), el("div", { class: "side-column" }, side)));
    }
    tick();
  }

  function tick() {
    const left = remaining(task);
    const place = task.queue_position && `number ${task.queue_position} in the queue`;
    setText(waits, [waiting(task), place].filter(Boolean).join("; "));
    setText(times, [elapsed(task) ? `${elapsed(task)} elapsed` : isFinal(task) && "Not started", left && `${left} left`].filter(Boolean).join(" · ").replace("any moment left", "done any moment"));
  }

  function head() {
    setText(title, task.task_type);
    document.title = `${task.task_type} ${task.status} · task-server`;
    const cancelling = isStopping(task);
    const cancel = !isFinal(task) && actionButton({ class: "danger", disabled: cancelling }, cancelling ? "Cancel requested" : "Cancel", () => cancelOne(task));
    const completed = task.status === "completed";
    const retry = isFinal(task) && actionButton({ class: !completed && "primary" }, completed ? "Run again" : "Retry", async () => {
      const fresh = await retryOne(task);
      if (fresh) go(taskPath(fresh));
    });
    const again = el("a", { class: "button", href: `/dashboard/submit?from=${encodeURIComponent(id)}` }, "Edit a copy");
    const heading = el("div", { class: "title" }, title, statusPill(task));
    const name = el("p", { class: "id-line" }, el("code", {}, task.task_id), copyButton(() => task.task_id, "Copy id"));
    return [heading, name, el("div", { class: "actions", role: "group", "aria-label": "Actions" }, cancel, retry, again, copyButton(() => curlFor(submissionOf(task)), "Copy as curl", "button"))];
  }

  function now() {
    const bar = task.status === "running" && el("div", { class: "bar" }, progressBar(task), el("span", { class: "percent" }, percent(task)));
    const stopping = isStopping(task) && el("p", { class: "hint" }, "It was asked to stop, and has not done so yet.");
    // The error has a panel of its own.
    const message = task.error === null || task.status === "running" ? standing(task) : "";
    return [el("section", { class: "panel", "aria-label": "Progress" }, bar, message && el("p", { class: "message" }, message), waits, stopping, times)];
  }

  function timeline() {
    const events = [["Submitted", task.created_at]];
    if (task.run_at) events.push(["Not before", task.run_at]);
    const first = Math.min(...attempts.keys(), Infinity);
    if (first > 1 && first !== Infinity) events.push([first === 2 ? "Attempt 1 failed" : `Attempts 1 to ${first - 1} failed`, null]);
    for (const [number, seen] of attempts) {
      const of = task.max_attempts > 1 ? `Attempt ${number} of ${task.max_attempts} began` : task.attempt > 1 ? `Attempt ${number} began` : "Started";
      // The last error has a panel of its own.
      events.push([of, seen.started, seen.error && (seen.error === task.error ? "failed" : `failed: ${seen.error}`)]);
    }
    if (task.cancel_requested_at) events.push(["Cancellation requested", task.cancel_requested_at]);
    if (task.completed_at) {
      const took = task.started_at && `after ${duration((Date.parse(task.completed_at) - Date.parse(task.started_at)) / 1000)}`;
      events.push([task.status[0].toUpperCase() + task.status.slice(1), task.completed_at, took]);
    } else if (task.status === "pending" && task.attempt > 0) {
      events.push([`Waits for attempt ${task.attempt + 1}`, null]);
    }
    return el("ol", { class: "timeline" }, events.map(([what, at, more]) => el("li", {}, el("strong", {}, what), at && fullMoment(at), more && el("span", { class: "hint" }, more))));
  }

  function details() {
    const rows = [
      ["Input", path(task.input_file_path)],
      ["Output", path(task.output_file_path)],
      ["Tags", Object.keys(task.tags).length > 0 && el("span", { class: "tag-list" }, Object.entries(task.tags).map(([key, value]) => tagLink(key, value)))],
      ["Priority", task.priority !== 0 && String(task.priority)],
      ["Time limit", task.timeout_seconds !== null && `${duration(task.timeout_seconds)} for each attempt`],
      ["Attempts", `${task.attempt} of ${task.max_attempts}`],
      ["Repeated by", task.retried_by && el("a", { href: taskPath(task.retried_by) }, el("code", {}, task.retried_by))],
      ["Repeats", task.retry_of && el("a", { href: taskPath(task.retry_of) }, el("code", {}, task.retry_of))],
    ];
    return el("dl", {}, rows.filter(([, value]) => value).map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  }

  const path = (text) => text !== null && el("code", { class: "path" }, text);

  function take(fresh) {
    // The stream and the first look may cross.
    if (task && (isFinal(task) || fresh.updated_at < task.updated_at)) return;
    task = fresh;
    if (task.attempt > 0 && task.started_at) {
      const failed = task.status === "pending" || task.status === "failed";
      attempts.set(task.attempt, { started: task.started_at, error: failed ? task.error : null });
    }
    draw();
  }

  function fail(problem) {
    if (problem.status !== 404) return;
    setText(title, "No such task");
    place.replaceChildren(title, el("p", { class: "note" }, problem.message), el("p", {}, el("a", { href: "/dashboard" }, "All tasks")));
  }

  const look = async () => {
    try {
      take(await get(`/tasks/${encodeURIComponent(id)}`, signal));
    } catch (error) {
      if (error instanceof Problem) fail(error);
    }
  };
  const ticks = setInterval(() => task && tick(), TICK_EVERY);
  const asking = setInterval(() => { if (!document.hidden && task?.status === "pending") look(); }, ASK_WHY_EVERY);
  signal.addEventListener("abort", () => { clearInterval(ticks); clearInterval(asking); });
  signal.addEventListener("abort", whenBack(look));
  look();
  follow(`/tasks/${encodeURIComponent(id)}/events`, signal, {
    open: () => {},
    event: (name, fresh) => {
      if (name === "reset") return;
      take(fresh);
      // Why it waits for its next attempt is not in the event.
      if (task.status === "pending" && task.attempt > 0) look();
    },
    end: look,
    fail,
  });
}

// A titled box.
export function panel(title, tools, ...children) {
  return el("section", { class: "panel", "aria-label": title }, el("div", { class: "panel-head" }, el("h2", {}, title), tools), children);
}

function jsonPanel(title, value) {
  if (value === null || Object.keys(value).length === 0) return [];
  const text = JSON.stringify(value, null, 2);
  return [panel(title, copyButton(() => text), el("pre", { tabindex: 0, "aria-label": title }, text))];
}
