// The output of a task: a file is saved, and looked at where it is an image or text; a folder is listed.

import { Problem, send, storedKey } from "./api.js";
import { sayProblem } from "./actions.js";
import { bytes, el } from "./dom.js";

const MOST_TEXT = 64 * 1024;
const LARGEST_IMAGE = 32 * 1024 * 1024;

export function outputPanel(task, signal) {
  const path = `/tasks/${task.task_id}/output`;
  const name = task.output_file_path.replace(/\/+$/, "").split("/").pop();
  const size = el("span", { class: "hint" });
  const content = el("div", { class: "preview" });
  const save = saver(path, name, "Download");
  preview(path, name, content, size, save, signal).catch((error) => {
    if (!(error instanceof Problem)) return;
    save.remove();
    content.replaceChildren(el("p", { class: "note" }, error.message));
  });
  return el("section", { class: "panel", "aria-label": "Output" },
    el("div", { class: "panel-head" }, el("h2", {}, "Output"), el("code", { class: "path" }, name), size, save), content);
}

// A link brings no key.
function saver(path, name, text) {
  return storedKey()
    ? el("button", { type: "button", class: "small", onclick: () => download(path, name) }, text)
    : el("a", { class: "button small", href: path, download: name }, text);
}

async function preview(path, name, content, size, save, signal) {
  const head = await send(path, { headers: { Range: `bytes=0-${MOST_TEXT - 1}` }, signal });
  if (head.status === 416) return void (size.textContent = "empty");
  if (!head.ok) throw new Problem(head.status, await head.json().catch(() => null));
  if (head.headers.get("Content-Location")?.endsWith("/")) {
    save.remove();
    return void content.append(fileList(path, await head.json(), head.headers.has("Link")));
  }
  const total = Number(/\/(\d+)$/.exec(head.headers.get("Content-Range") ?? "")?.[1] ?? head.headers.get("Content-Length"));
  const type = head.headers.get("Content-Type") ?? "";
  size.textContent = bytes(total);
  if (type.startsWith("image/") && type !== "image/tiff" && total <= LARGEST_IMAGE) {
    await head.body?.cancel();
    const whole = await (await send(path, { signal })).blob();
    const url = URL.createObjectURL(whole);
    signal.addEventListener("abort", () => URL.revokeObjectURL(url));
    content.append(el("img", { src: url, alt: `The output, ${name}` }));
  } else if (/^(text\/|application\/json)/.test(type)) {
    const text = await head.text();
    content.append(el("pre", { tabindex: 0, "aria-label": "Output" }, total <= MOST_TEXT ? readable(text, type) : text));
    if (total > MOST_TEXT) content.append(el("p", { class: "hint" }, `The first ${bytes(MOST_TEXT)} of it.`));
  } else {
    await head.body?.cancel();
  }
}

function fileList(path, files, more) {
  if (files.length === 0) return el("p", { class: "hint" }, "The folder is empty.");
  const row = (file) => {
    const url = `${path}/${file.path.split("/").map(encodeURIComponent).join("/")}`;
    const name = file.path.split("/").pop();
    return el("tr", {}, el("td", {}, el("code", { class: "path" }, file.path)), el("td", {}, bytes(file.bytes)), el("td", {}, saver(url, name, "Download")));
  };
  return el("div", {},
    el("table", { class: "files", "aria-label": "Files of the output" }, el("tbody", {}, files.map(row))),
    more && el("p", { class: "hint" }, `The first ${files.length} files.`));
}

function readable(text, type) {
  if (!type.startsWith("application/json")) return text;
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}

export async function download(path, name) {
  try {
    const response = await send(path);
    if (!response.ok) throw new Problem(response.status, await response.json().catch(() => null));
    const url = URL.createObjectURL(await response.blob());
    el("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (error) {
    sayProblem(error);
  }
}
