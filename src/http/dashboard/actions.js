// What users do with tasks: cancel, retry, copy. Each says what came of it.

import { Problem, cancel, randomKey, retry, storedKey, whyReadOnly } from "./api.js";
import { el, isFinal, isStopping, say } from "./dom.js";

// How many requests are under way when many tasks are changed.
const AT_ONCE = 4;

// A button that changes tasks: disabled for a key that may not, and while its request is under way.
export function actionButton(properties, label, action) {
  const refusal = whyReadOnly();
  const onclick = async ({ currentTarget: button }) => {
    button.disabled = true;
    try { await action(); } finally { button.disabled = false; }
  };
  return el("button", { type: "button", title: refusal, ...properties, disabled: Boolean(refusal) || properties.disabled, onclick }, label);
}

// Asks before something that cannot be undone.
export function ask(title, text, yes) {
  const dialog = document.getElementById("ask");
  document.getElementById("ask-title").textContent = title;
  document.getElementById("ask-text").textContent = text;
  document.getElementById("ask-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

// A sentence for what went wrong; nothing where the banner says it already.
export function sayProblem(error) {
  if (error instanceof Problem) say(error.message, true);
  else if (error.name !== "AbortError") say("That did not reach the server. Try again when it answers.", true);
}

export async function cancelOne(task) {
  const running = task.status === "running";
  const text = running ? "It is asked to stop. What it has done so far is lost." : "It will not run.";
  if (!(await ask("Cancel this task?", text, "Cancel the task"))) return;
  try {
    say((await cancel(task.task_id)).message);
  } catch (error) {
    sayProblem(error);
  }
}

// Submits the task again; returns the id of the new one.
export async function retryOne(task) {
  const done = task.status === "completed";
  if (done && !(await ask("Run this task again?", "It has completed. A new task with the same parameters writes the same output.", "Run again"))) return undefined;
  try {
    const { task_id } = await retryOnce(task);
    say("Submitted again");
    return task_id;
  } catch (error) {
    sayProblem(error);
    return undefined;
  }
}

// The keys of retries that were not answered: asked for again, they are the same retry.
const unanswered = new Map();

async function retryOnce(task) {
  const key = unanswered.get(task.task_id) ?? randomKey();
  unanswered.set(task.task_id, key);
  const answer = await retry(task.task_id, key);
  unanswered.delete(task.task_id);
  return answer;
}

export async function cancelMany(tasks) {
  const open = tasks.filter((task) => !isFinal(task) && !isStopping(task));
  if (open.length === 0) return void say("All of these have ended or were asked to stop already");
  const title = open.length === 1 ? "Cancel this task?" : `Cancel ${open.length} tasks?`;
  if (!(await ask(title, "Those that run are asked to stop, the others will not run.", "Cancel them"))) return;
  const done = await each(open, (task) => cancel(task.task_id));
  const requested = done.answers.filter((answer) => answer.status === 202 || answer.message === "Cancellation requested").length;
  const cancelled = done.answers.length - requested;
  report([[cancelled, "cancelled"], [requested, "asked to stop"]], done.problems, "cancel");
}

export async function retryMany(tasks) {
  const ended = tasks.filter(isFinal);
  if (ended.length === 0) return void say("None of these has ended yet");
  const completed = ended.filter((task) => task.status === "completed").length;
  if (ended.length === 1 && completed === 0) return void (await retryOne(ended[0]));
  const title = ended.length === 1 ? "Run this task again?" : `Submit ${ended.length} tasks again?`;
  const warning = completed > 0 ? ` ${completed} ${completed === 1 ? "has" : "have"} completed and will write the same output again.` : "";
  if (!(await ask(title, `Each becomes a new task with the same parameters.${warning}`, "Submit again"))) return;
  const done = await each(ended, retryOnce);
  report([[done.answers.length, "submitted again"]], done.problems, "submit");
}

async function each(tasks, work) {
  const [waiting, answers, problems] = [[...tasks], [], []];
  const worker = async () => {
    for (let task = waiting.shift(); task; task = waiting.shift()) {
      try { answers.push(await work(task)); } catch (error) { problems.push(error); }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return { answers, problems };
}

function report(counts, problems, verb) {
  const parts = counts.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`);
  if (problems.length) {
    const why = problems[0] instanceof Problem ? problems[0].message : "the server did not answer";
    parts.push(`Could not ${verb} ${problems.length} ${problems.length === 1 ? "task" : "tasks"}: ${why}`);
  }
  say(parts.join(", "), problems.length > 0);
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied");
  } catch {
    // Browsers offer the clipboard to https and loopback only.
    const place = el("textarea", { class: "unseen", "aria-hidden": "true" });
    (document.querySelector("dialog[open]") ?? document.body).append(place);
    place.value = text;
    place.select();
    const copied = document.execCommand("copy");
    place.remove();
    say(copied ? "Copied" : "The browser does not allow copying: select the text instead", !copied);
  }
}

export function copyButton(text, label = "Copy", looks = "small") {
  return el("button", { type: "button", class: looks, onclick: () => copy(text()) }, label);
}

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// The command that submits this.
export function curlFor(submission) {
  const lines = [`curl -X POST ${quote(`${location.origin}/tasks`)}`];
  if (storedKey()) lines.push('-H "Authorization: Bearer $TASK_SERVER_API_KEY"');
  lines.push("-H 'Content-Type: application/json'", `-d ${quote(JSON.stringify(submission))}`);
  return lines.join(" \\\n  ");
}

// What was submitted to make this task.
export function submissionOf(task) {
  const submission = { task_type: task.task_type, parameters: task.parameters };
  for (const field of ["input_file_path", "output_file_path", "timeout_seconds"]) {
    if (task[field] !== null) submission[field] = task[field];
  }
  if (task.priority !== 0) submission.priority = task.priority;
  if (task.max_attempts !== 1) submission.max_attempts = task.max_attempts;
  if (Object.keys(task.tags).length) submission.tags = task.tags;
  return submission;
}
