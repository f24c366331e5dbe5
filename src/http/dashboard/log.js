// The log of a task: its last lines, and further ones while it runs.

import { Problem, send, storedKey, whenVisible } from "./api.js";
import { download } from "./output.js";
import { el, isFinal } from "./dom.js";

const LINES = 500;
// What stays on the page of a log that grows.
const MOST_TEXT = 512 * 1024;
const TRY_AGAIN = 1000;

export function logPanel(task, signal) {
  const path = `/tasks/${task.task_id}/log`;
  const text = el("pre", { class: "log", tabindex: 0, role: "log", "aria-live": "off", "aria-label": "Log" });
  // A link brings no key.
  const whole = storedKey()
    ? el("button", { type: "button", class: "small", onclick: () => download(path, `${task.task_id}.log`) }, "Whole log")
    : el("a", { class: "button small", href: path, target: "_blank", rel: "noopener" }, "Whole log");
  const none = el("p", { class: "hint" }, "No log.");
  const panel = el("section", { class: "panel", "aria-label": "Log" },
    el("div", { class: "panel-head" }, el("h2", {}, "Log"), whole), text, none);
  const show = () => { text.hidden = whole.hidden = !text.textContent; none.hidden = !text.hidden; };
  show();
  read(path, !isFinal(task), signal, (part, isFirst) => {
    const follows = text.scrollTop + text.clientHeight >= text.scrollHeight - 8;
    append(text, plain(part), isFirst);
    show();
    if (follows) text.scrollTop = text.scrollHeight;
  }).catch((error) => {
    if (error instanceof Problem) none.textContent = error.message;
  });
  return panel;
}

// Colours of terminals mean nothing here.
const plain = (text) => text.replace(/\x1b\[[0-9;]*m/g, "");

function append(element, part, isFirst) {
  const before = isFirst ? "" : element.textContent;
  if (before.length + part.length <= MOST_TEXT) {
    if (isFirst) element.textContent = part;
    else element.append(part);
    return;
  }
  const all = before + part;
  element.textContent = all.slice(all.indexOf("\n", all.length - MOST_TEXT / 2) + 1);
}

// Reads the end of a log, and follows it while the task goes on and somebody looks.
async function read(path, follows, signal, take) {
  while (!signal.aborted) {
    await whenVisible(signal);
    const look = new AbortController();
    const stop = () => look.abort();
    const hide = () => { if (document.hidden) stop(); };
    signal.addEventListener("abort", stop);
    document.addEventListener("visibilitychange", hide);
    try {
      const answer = await send(`${path}?tail=${LINES}&follow=${follows}`, { signal: look.signal });
      if (!answer.ok && answer.status !== 503) throw new Problem(answer.status, await answer.json().catch(() => null));
      if (answer.ok) {
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        for (let isFirst = true; ; isFirst = false) {
          const { done, value } = await reader.read();
          if (done) return;
          take(value, isFirst);
        }
      }
    } catch (error) {
      // The connection broke, or nobody looks any more.
      if (error instanceof Problem) throw error;
    } finally {
      signal.removeEventListener("abort", stop);
      document.removeEventListener("visibilitychange", hide);
    }
    if (!signal.aborted) await new Promise((resolve) => { setTimeout(resolve, TRY_AGAIN); });
  }
}
