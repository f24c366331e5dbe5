// One row of the table.

import { el, elapsed, isFinal, moment, percent, progressBar, remaining, setText, standing, statusPill, tagLink, taskPath, waiting } from "./dom.js";

// Tags in a row; the page of a task has all of them.
const MOST_TAGS = 3;

export class Row {
  constructor(task, onSelect) {
    const cell = (name, ...children) => el("td", { class: name, role: "cell" }, children);
    const id = task.task_id;
    this.task = task;
    this.box = el("input", { type: "checkbox", "aria-label": `Select task ${id}`, onchange: onSelect });
    this.status = cell("status");
    this.bar = el("div", { class: "bar" });
    this.message = el("div", { class: "message" });
    this.elapsed = cell("elapsed");
    this.remaining = cell("remaining");
    const name = el("a", { class: "type", href: taskPath(id) }, task.task_type, el("span", { class: "id", title: id }, shortId(id)));
    const all = Object.entries(task.tags);
    const tags = all.slice(0, MOST_TAGS).map(([key, value]) => tagLink(key, value));
    const rest = all.slice(MOST_TAGS).map(([key, value]) => `${key}=${value}`);
    if (rest.length) tags.push(el("span", { class: "hint", title: rest.join("\n") }, `+${rest.length}`));
    this.element = el("tr", { role: "row", "data-id": id }, cell("check", this.box), this.status, cell("name", name),
      cell("progress", this.bar, this.message), this.elapsed, this.remaining, cell("created", moment(task.created_at)), cell("tags", tags.length > 0 && el("span", { class: "tag-list" }, tags)));
    this.draw();
  }

  get selected() { return this.box.checked; }
  set selected(wanted) { this.box.checked = wanted; }

  // Takes in a newer state; one that was on its way longer than another is left out.
  update(task) {
    if (task === this.task || isFinal(this.task) || task.updated_at < this.task.updated_at) return;
    // Events do not tell why a task waits; lists do.
    const same = task.status === "pending" && this.task.status === "pending";
    this.task = same ? { waiting_because: this.task.waiting_because, ...task } : task;
    this.draw();
  }

  draw() {
    const { task } = this;
    const pill = statusPill(task);
    if (this.status.firstChild?.textContent !== pill.textContent) this.status.replaceChildren(pill);
    if (task.status === "running") this.bar.replaceChildren(progressBar(task), el("span", { class: "percent" }, percent(task)));
    else this.bar.replaceChildren();
    this.tick();
  }

  // What changes by itself.
  tick() {
    setText(this.elapsed, elapsed(this.task));
    setText(this.remaining, remaining(this.task));
    const text = [standing(this.task), waiting(this.task)].filter(Boolean).join("; ");
    setText(this.message, text);
    this.message.title = text;
  }
}

// Ids of one hour begin alike; their ends tell them apart, and name them on the command line.
const shortId = (id) => `…${id.slice(-8)}`;
