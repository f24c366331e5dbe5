// The form that submits a task, made from what `GET /task-types` tells of each type.

import { copyButton, curlFor, sayProblem } from "./actions.js";
import { Problem, change, get, randomKey, whenBack, whyReadOnly } from "./api.js";
import { el, prose, say, taskPath } from "./dom.js";
import { Field, resolved } from "./field.js";

const CHECK_AFTER = 300;

const PATHS = {
  input_file_path: "The file to read, below a folder that the server may use.",
  output_file_path: "The file to write. It appears, whole, when the task has completed.",
};

const OPTIONS = {
  priority: { type: "integer", description: "Tasks with a higher number run first.", default: 0 },
  max_attempts: { type: "integer", minimum: 1, maximum: 1000, description: "How often it is tried before it is failed.", default: 1 },
  timeout_seconds: { type: "number", description: "How long one attempt may take. Empty for no limit." },
  run_at: { type: "string", format: "date-time", description: "Not before this time." },
  tags: { format: "lines", description: "Labels to find it by, one a line, as in plate=7." },
};

export function submitView(place, signal, query, go) {
  place.append(el("h1", {}, "Submit a task"), el("p", { class: "note" }, "Loading…"));
  const begin = async () => {
    try {
      const types = await get("/task-types", signal);
      const from = query.get("from");
      const task = from && (await get(`/tasks/${encodeURIComponent(from)}`, signal));
      form(place, signal, types, { type: query.get("type"), ...(task ? { task, type: task.task_type } : {}) }, go);
    } catch (error) {
      if (error instanceof Problem) place.replaceChildren(el("h1", {}, "Submit a task"), el("p", { class: "note" }, error.message));
    }
  };
  const stop = whenBack(() => { if (!place.querySelector("form")) begin(); });
  signal.addEventListener("abort", stop);
  begin();
}

function form(place, signal, types, { type: wanted, task }, go) {
  let type = types.find((one) => one.task_type === wanted) ?? types[0];
  let fields = [];
  let tried = false;
  let faults = [];
  let checking;
  let timer;
  // The same submission sent again, after a lost answer, is the same task.
  let sent;

  const choice = el("select", { id: "field-task-type", onchange: () => choose(choice.value) }, types.map((one) => el("option", { value: one.task_type }, one.task_type)));
  const about = el("p", { class: "about" });
  const parameters = el("div", { class: "fields" });
  const others = el("div", { class: "fault", role: "alert", hidden: true });
  const options = Object.entries(OPTIONS).map(([name, schema]) => new Field(name, schema, { value: optionOf(task, name) ?? schema.default, label: worded(name), onChange: changed }));
  const more = el("details", { class: "options" }, el("summary", {}, "More options"), el("div", { class: "fields" }, options.map((field) => field.element)));
  more.open = options.some((field) => !field.isDefault());
  const state = el("p", { class: "state", role: "status" });
  const button = el("button", { class: "primary", disabled: Boolean(whyReadOnly()), title: whyReadOnly() }, "Submit");
  const command = el("pre", { tabindex: 0, "aria-label": "The same with curl" });
  place.replaceChildren(
    el("h1", {}, "Submit a task"),
    el("div", { class: "columns" },
      el("form", { class: "panel main-column", novalidate: true, "aria-label": "Submission", onsubmit: submit },
        el("div", { class: "field" }, el("label", { for: "field-task-type" }, "Type"), choice, about), parameters, more, others,
        el("div", { class: "submit-line" }, button, state)),
      el("div", { class: "side-column" }, el("section", { class: "panel", "aria-label": "As a command" },
        el("div", { class: "panel-head" }, el("h2", {}, "The same with curl"), copyButton(() => curlFor(submission()))), command))));
  choose(type.task_type, task);

  function choose(name, from) {
    type = types.find((one) => one.task_type === name);
    choice.value = name;
    about.replaceChildren(...(type.problem ? [el("strong", { class: "problem" }, `Problem: ${type.problem} `)] : []), ...prose(type.description.replaceAll(/([^\n])\n([^\n])/g, "$1 $2")));
    const kept = new Map(fields.filter((field) => field.name in PATHS).map((field) => [field.name, field.value()]));
    const schema = type.parameters;
    const required = schema.required ?? [];
    const paths = Object.entries(PATHS).filter(([path]) => type[path] !== "unused").map(([path, description]) =>
      new Field(path, { type: "string", description }, { value: from?.[path] ?? kept.get(path), required: type[path] === "required", label: worded(path.replace("_path", "")), onChange: changed }));
    const own = Object.entries(schema.properties ?? {}).map(([parameter, property]) =>
      new Field(`parameters.${parameter}`, resolved(property, schema), { value: from?.parameters[parameter] ?? property.default, required: required.includes(parameter), onChange: changed }));
    fields = [...paths, ...own];
    parameters.replaceChildren(...fields.map((field) => field.element));
    tried = false;
    faults = [];
    history.replaceState(null, "", from ? location.href : `/dashboard/submit?${new URLSearchParams({ type: name })}`);
    changed();
  }

  function submission() {
    const body = { task_type: type.task_type, parameters: {} };
    for (const field of [...fields, ...options]) {
      if (field.isDefault()) continue;
      const value = field.name === "tags" ? tagsOf(field.value()) : field.value();
      if (value === undefined) continue;
      if (field.name.startsWith("parameters.")) body.parameters[field.name.slice("parameters.".length)] = value;
      else body[field.name] = value;
    }
    return body;
  }

  function changed() {
    command.textContent = curlFor(submission());
    state.textContent = "Checking…";
    clearTimeout(timer);
    timer = setTimeout(check, CHECK_AFTER);
  }
  signal.addEventListener("abort", () => clearTimeout(timer));

  async function check() {
    checking?.abort();
    checking = new AbortController();
    signal.addEventListener("abort", () => checking.abort());
    try {
      await change("POST", "/tasks?dry_run=true", submission(), {}, checking.signal);
      show([], "Ready to submit");
    } catch (error) {
      if (error instanceof Problem && error.faults.length) show(error.faults, "");
      else if (error instanceof Problem) show([], error.message, true);
    }
  }

  const fieldOf = (fault) => (fault.loc[1] === "parameters" && fault.loc.length > 2 ? `parameters.${fault.loc[2]}` : fault.loc[1]);

  function show(found, text, wrong = false) {
    faults = found;
    const known = new Set();
    let hidden = 0;
    for (const field of [...fields, ...options]) {
      known.add(field.name);
      const own = faults.filter((fault) => fieldOf(fault) === field.name);
      const visible = tried || field.touched;
      field.show(visible ? own.map((fault) => fault.msg) : []);
      if (!visible) hidden += own.length;
      if (visible && own.length && options.includes(field)) more.open = true;
    }
    const rest = faults.filter((fault) => !known.has(fieldOf(fault)));
    others.hidden = rest.length === 0;
    others.textContent = rest.map((fault) => `${fault.loc.slice(1).join(".")}: ${fault.msg}`).join("\n");
    const count = new Set(faults.map(fieldOf)).size;
    state.textContent = count === 0 ? text : count === 1 ? "1 field needs attention" : `${count} fields need attention`;
    state.classList.toggle("wrong", faults.length > hidden || wrong);
  }

  async function submit(event) {
    event.preventDefault();
    clearTimeout(timer);
    checking?.abort();
    tried = true;
    button.disabled = true;
    const body = submission();
    const text = JSON.stringify(body);
    if (sent?.text !== text) sent = { text, key: randomKey() };
    try {
      const { task_id } = await change("POST", "/tasks", body, { "Idempotency-Key": sent.key });
      say("Submitted");
      go(taskPath(task_id));
    } catch (error) {
      button.disabled = false;
      if (error instanceof Problem && error.faults.length) {
        show(error.faults, "");
        place.querySelector("[aria-invalid]")?.focus();
      } else if (error instanceof Problem) {
        show([], error.message, true);
      } else {
        sayProblem(error);
      }
    }
  }
}

// `max_attempts` as "Max attempts".
function worded(name) {
  const words = name.replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}

function optionOf(task, name) {
  if (!task || name === "run_at") return undefined;
  if (name !== "tags") return task[name] ?? undefined;
  const lines = Object.entries(task.tags).map(([key, value]) => `${key}=${value}`);
  return lines.length ? lines.join("\n") : undefined;
}

function tagsOf(text) {
  const lines = (text ?? "").split("\n").map((line) => line.trim()).filter(Boolean);
  if (lines.length === 0) return undefined;
  return Object.fromEntries(lines.map((line) => {
    const equals = line.indexOf("=");
    return equals < 0 ? [line, ""] : [line.slice(0, equals).trim(), line.slice(equals + 1).trim()];
  }));
}
