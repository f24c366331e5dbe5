// The frame around the views: which one the address names, links without loading, the search box.

import { forgetKey, learnAccess, storedKey } from "./api.js";
import { el, say, taskPath } from "./dom.js";
import { overviewView } from "./overview.js";
import { submitView } from "./submit.js";
import { taskView } from "./task.js";
import { tasksView } from "./tasks.js";

const main = document.getElementById("main");
let shown;

// Each view fills `main` and returns nothing; what it leaves running ends with its signal.
function route(path) {
  const task = /^\/dashboard\/tasks\/([^/]+)\/?$/.exec(path);
  if (task) return ["task", (place, signal) => taskView(place, signal, decodeURIComponent(task[1]), go)];
  switch (path.replace(/\/$/, "")) {
    case "/dashboard": return ["tasks", (place, signal) => tasksView(place, signal, new URLSearchParams(location.search), go)];
    case "/dashboard/overview": return ["overview", overviewView];
    case "/dashboard/submit": return ["submit", (place, signal) => submitView(place, signal, new URLSearchParams(location.search), go)];
    default: return ["", (place) => place.append(el("h1", {}, "There is no such page"), el("p", {}, el("a", { href: "/dashboard" }, "All tasks")))];
  }
}

function show() {
  shown?.abort();
  shown = new AbortController();
  const [name, view] = route(location.pathname);
  for (const link of document.querySelectorAll("nav [data-view]")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const place = el("div", { class: `view ${name}` });
  main.replaceChildren(place);
  view(place, shown.signal);
  const heading = place.querySelector("h1");
  document.title = heading ? `${heading.textContent} · task-server` : "task-server";
}

// Goes to an address of the dashboard. `replace` for what the back button should not stop at.
export function go(path, { replace = false, focus = true } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", path);
  show();
  if (focus) {
    window.scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  if (!link || !plain || link.target || link.hasAttribute("download") || event.defaultPrevented) return;
  const url = new URL(link.href);
  const ours = url.origin === location.origin && /^\/dashboard(\/|$)/.test(url.pathname);
  if (!ours || url.hash) return;
  event.preventDefault();
  go(url.pathname + url.search);
});

window.addEventListener("popstate", (event) => {
  // The skip link only moves within the page.
  if (!location.hash || event.state !== null) show();
});

document.getElementById("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = event.target.elements.id;
  const id = field.value.trim();
  if (!/^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$/i.test(id)) {
    if (id) say("That is no task id: it has 32 hexadecimal digits, as in 01a20732-f200-71ab-9765-8f3e7d9d31d8", true);
    return;
  }
  field.value = "";
  go(taskPath(id));
});

const forget = document.getElementById("forget-key");
forget.hidden = !storedKey();
forget.addEventListener("click", forgetKey);

await learnAccess();
show();
