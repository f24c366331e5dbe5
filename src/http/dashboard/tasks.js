// The table of tasks: filtered, paged, and kept up to date by the event stream.

import { actionButton, cancelMany, retryMany } from "./actions.js";
import { Problem, follow, get, getPage, whenBack } from "./api.js";
import { STATUSES, el, say, setText } from "./dom.js";
import { Row } from "./row.js";

const PAGE = 50;
// How often the table takes in what has happened; a busy server tells of thousands of changes a second.
const REDRAW_EVERY = 250;
const COUNT_EVERY = 2000;
// Why a task waits changes without any event of its own.
const ASK_WHY_EVERY = 3000;

// The cursors of the pages before this one, newest last, so that one can go back.
let trail = [];

export function tasksView(place, signal, query, go) {
  const filter = readFilter(query);
  const cursor = query.get("cursor");
  if (!cursor) trail = [];
  const rows = new Map();
  const changes = new Map();
  let matching = new Set();
  let next;
  let loaded = false;
  let loading;
  let again = false;
  // Whether the server is being asked why tasks wait.
  let asked = false;
  // Whether new tasks have pushed others off the page, so that the next one begins elsewhere.
  let pushed = false;

  const heading = el("h1", { class: "unseen" }, "Tasks");
  const note = el("p", { class: "note", hidden: true });
  const body = el("tbody", { role: "rowgroup" });
  const all = el("input", { type: "checkbox", "aria-label": "Select all on this page", onchange: () => selectAll(all.checked) });
  const head = el("tr", { role: "row" }, el("th", { scope: "col", class: "check", role: "columnheader" }, all),
    ["Status", "Task", "Progress", "Elapsed", "Remaining", "Created", "Tags"].map((name) => el("th", { scope: "col", role: "columnheader" }, name)));
  const table = el("table", { class: "tasks", role: "table", "aria-label": "Tasks", "aria-busy": "true" },
    el("thead", { role: "rowgroup" }, head), body);
  const selected = el("span", {});
  const actions = el("span", { class: "actions" });
  const bar = el("div", { class: "selection", role: "group", "aria-label": "Selected tasks", hidden: true }, selected, actions,
    el("button", { type: "button", class: "quiet", onclick: () => selectAll(false) }, "Clear"));
  const newer = el("button", { type: "button", disabled: !cursor, onclick: toNewer }, "Newer");
  const older = el("button", { type: "button", disabled: true, onclick: toOlder }, "Older");
  const newest = cursor && el("button", { type: "button", class: "quiet", onclick: () => go(address(filter)) }, "To the newest");
  const pages = el("nav", { class: "pages", "aria-label": "Pages" }, newer, older, newest);
  const bars = filterBar(filter, signal, (changed) => go(address(changed), { focus: false }));
  place.append(heading, bars.element, bar, note, el("div", { class: "scroll" }, table), pages);
  bars.restoreFocus();

  async function toOlder() {
    if (pushed) await load();
    if (pushed || !next) return;
    trail.push(cursor ?? "");
    go(address(filter, new URL(next, location.origin).searchParams.get("cursor")));
  }

  function toNewer() {
    const before = trail.pop();
    go(address(filter, before));
  }

  const picked = () => [...rows.values()].filter((row) => row.selected).map((row) => row.task);

  function selectAll(wanted) {
    for (const row of rows.values()) row.selected = wanted;
    noteSelection();
  }

  async function withSelected(action) {
    await action(picked());
    selectAll(false);
  }

  function noteSelection() {
    const tasks = picked();
    const count = tasks.length;
    // Made when they are first needed: only then is it known what the key may do.
    if (bar.hidden && count > 0) {
      actions.replaceChildren(actionButton({ class: "danger" }, "Cancel", () => withSelected(cancelMany)), actionButton({}, "Retry", () => withSelected(retryMany)));
    }
    if (count > 0) setText(actions.lastChild, tasks.every((task) => task.status === "completed") ? "Run again" : "Retry");
    bar.hidden = count === 0;
    setText(selected, `${count} selected`);
    all.checked = count > 0 && count === rows.size;
    all.indeterminate = count > 0 && count < rows.size;
  }

  // One request at a time: an older answer must not take the place of a newer one. What happens
  // meanwhile is taken in after it.
  function load() {
    again = true;
    loading ??= loadWhileAsked().finally(() => { loading = undefined; });
    return loading;
  }

  async function loadWhileAsked() {
    while (again && !signal.aborted) {
      again = false;
      await loadPage();
    }
  }

  async function loadPage() {
    try {
      const page = await firstTasks();
      const keep = new Map(rows);
      rows.clear();
      for (const task of page.items) {
        const row = keep.get(task.task_id) ?? new Row(task, noteSelection);
        row.update(task);
        rows.set(task.task_id, row);
      }
      next = page.next;
      older.disabled = !next;
      loaded = true;
      pushed = false;
      draw();
      noteSelection();
      table.setAttribute("aria-busy", "false");
    } catch (error) {
      if (error instanceof Problem) showNote(error.message);
    }
  }

  // The server looks at a bounded number of tasks for a page, which may then be empty.
  async function firstTasks() {
    let page = await getPage(`/tasks?${listQuery(filter, cursor)}`, signal);
    while (page.items.length === 0 && page.next) {
      if (rows.size === 0) showNote("Looking through older tasks…");
      page = await getPage(page.next, signal);
    }
    return page;
  }

  // Only the pending tasks of this page: nothing else changes without an event.
  async function askWhy() {
    const count = [...rows.values()].filter((row) => row.task.status === "pending").length;
    if (asked || count === 0) return;
    asked = true;
    try {
      const page = await getPage(`/tasks?${listQuery({ ...filter, statuses: ["pending"] }, cursor, count)}`, signal);
      for (const task of page.items) rows.get(task.task_id)?.update(task);
    } catch (error) {
      if (error instanceof Problem) showNote(error.message);
    } finally {
      asked = false;
    }
  }

  function showNote(text) {
    note.hidden = !text;
    setText(note, text);
  }

  // Puts the rows in order, moving only what is not in its place.
  function draw() {
    const wanted = [...rows.values()].map((row) => row.element);
    for (const element of [...body.children]) {
      if (!wanted.includes(element)) element.remove();
    }
    wanted.forEach((element, index) => {
      if (body.children[index] !== element) body.insertBefore(element, body.children[index] ?? null);
    });
    const empty = loaded && rows.size === 0;
    showNote(!empty ? "" : isEmpty(filter) && !cursor ? "Nothing was submitted yet." : "No task matches.");
    table.hidden = empty;
  }

  function takeIn() {
    if (!loaded || loading || changes.size === 0) return;
    const fresh = [];
    for (const task of changes.values()) {
      const row = rows.get(task.task_id);
      const fits = matches(filter, task);
      if (row && fits) row.update(task);
      else if (row) rows.delete(task.task_id);
      else if (fits && !cursor) fresh.push(task);
    }
    changes.clear();
    // Ids sort by the time of submission. What is older than the page belongs to another one.
    const oldest = rows.size >= PAGE ? [...rows.keys()].at(-1) : "";
    const added = fresh.filter((task) => task.task_id > oldest);
    if (added.length) {
      pushed = true;
      for (const task of added) rows.set(task.task_id, new Row(task, noteSelection));
      const sorted = [...rows].sort(([a], [b]) => (a < b ? 1 : -1));
      rows.clear();
      for (const [id, row] of sorted.slice(0, PAGE)) rows.set(id, row);
      if (sorted.length > PAGE && !next) load();
    }
    draw();
    noteSelection();
  }

  const ticks = setInterval(() => {
    takeIn();
    for (const row of rows.values()) row.tick();
  }, REDRAW_EVERY);
  const asking = setInterval(() => {
    if (!document.hidden) askWhy();
  }, ASK_WHY_EVERY);
  signal.addEventListener("abort", () => { clearInterval(ticks); clearInterval(asking); });

  // Not only once the stream is open: a server with too many of them refuses one.
  load();
  follow(`/events?${listQuery(filter, null, 1)}`, signal, {
    // What happened in between is in the list; what happens from here on is told.
    open: load,
    event: (name, task) => {
      if (name === "reset") load();
      else if (!(changes.get(task.task_id)?.updated_at > task.updated_at)) changes.set(task.task_id, task);
    },
    end: () => {},
    fail: (problem) => { showNote(problem.message); table.setAttribute("aria-busy", "false"); },
  });
  signal.addEventListener("abort", whenBack(() => load()));
}

// The statuses, types and tags that are asked for.
function readFilter(query) {
  const list = (name) => query.getAll(name).flatMap((value) => value.split(",")).map((value) => value.trim()).filter(Boolean);
  const tags = [...query].filter(([name]) => name.startsWith("tag.")).map(([name, value]) => [name.slice(4), value]);
  return { statuses: list("status"), types: list("task_type"), tags };
}

const isEmpty = (filter) => filter.statuses.length + filter.types.length + filter.tags.length === 0;

function matches(filter, task) {
  return (filter.statuses.length === 0 || filter.statuses.includes(task.status))
    && (filter.types.length === 0 || filter.types.includes(task.task_type))
    && filter.tags.every(([key, value]) => Object.hasOwn(task.tags, key) && task.tags[key] === value);
}

function filterQuery(filter) {
  const query = new URLSearchParams();
  if (filter.statuses.length) query.set("status", filter.statuses.join(","));
  if (filter.types.length) query.set("task_type", filter.types.join(","));
  for (const [key, value] of filter.tags) query.append(`tag.${key}`, value);
  return query;
}

function address(filter, cursor) {
  const query = filterQuery(filter);
  if (cursor) query.set("cursor", cursor);
  const text = query.toString();
  return text ? `/dashboard?${text}` : "/dashboard";
}

function listQuery(filter, cursor, limit = PAGE) {
  const query = filterQuery(filter);
  query.set("limit", limit);
  if (cursor) query.set("cursor", cursor);
  return query;
}

// What had the focus when the filter changed, as the view is made anew then.
let focused;

function filterBar(filter, signal, change) {
  const counts = new Map();
  const chip = (status) => {
    const on = filter.statuses.includes(status);
    const count = el("span", { class: "count" });
    counts.set(status, count);
    const statuses = on ? filter.statuses.filter((one) => one !== status) : [...filter.statuses, status];
    return el("button", { type: "button", class: `chip ${status}`, "aria-pressed": String(on), "data-focus": status,
      onclick: () => changed(status, { ...filter, statuses }) }, status, count);
  };
  const types = el("select", { "aria-label": "Type", "data-focus": "type",
    onchange: () => changed("type", { ...filter, types: types.value ? types.value.split(",") : [] }) }, el("option", { value: "" }, "All types"));
  const tag = el("input", { name: "tag", placeholder: "tag=value", "aria-label": "Filter by tag, as tag=value", autocomplete: "off", spellcheck: "false", "data-focus": "tag" });
  const form = el("form", { class: "tag-filter", onsubmit: (event) => {
    event.preventDefault();
    const equals = tag.value.indexOf("=");
    if (equals < 1) return void (tag.value && say("Write the tag and its value, as in plate=7", true));
    changed("tag", { ...filter, tags: [...filter.tags, [tag.value.slice(0, equals).trim(), tag.value.slice(equals + 1).trim()]] });
  } }, tag);
  const tags = filter.tags.map(([key, value], index) => el("button", { type: "button", class: "tag on", "aria-label": `Remove the filter ${key}=${value}`,
    onclick: () => changed("tag", { ...filter, tags: filter.tags.filter((_, other) => other !== index) }) }, `${key}=${value}`, el("span", { "aria-hidden": "true" }, "×")));
  const clear = !isEmpty(filter) && el("button", { type: "button", class: "quiet", onclick: () => changed("type", { statuses: [], types: [], tags: [] }) }, "Clear filters");
  const element = el("div", { class: "filters", role: "group", "aria-label": "Filters" },
    el("div", { class: "chips" }, STATUSES.map(chip)), types, form, tags, clear);

  function changed(what, wanted) {
    focused = what;
    change(wanted);
  }

  get("/task-types", signal).then((known) => {
    const names = known.map((one) => one.task_type);
    const chosen = filter.types.join(",");
    if (chosen && !names.includes(chosen)) names.push(chosen);
    types.append(...names.map((name) => el("option", { value: name }, name)));
    types.value = chosen;
  }).catch(() => {});

  const count = async () => {
    if (document.hidden) return;
    try {
      const stats = await get("/stats", signal);
      for (const [status, place] of counts) setText(place, (stats.counts[status] ?? 0).toLocaleString());
    } catch (error) {
      // A server without figures shows none.
      if (error instanceof Problem && error.status === 404) clearInterval(counting);
    }
  };
  const counting = setInterval(count, COUNT_EVERY);
  signal.addEventListener("abort", () => clearInterval(counting));
  count();

  const restoreFocus = () => {
    if (focused) element.querySelector(`[data-focus="${focused}"]`)?.focus();
    focused = undefined;
  };
  return { element, restoreFocus };
}
