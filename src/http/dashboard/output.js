// The output file of a task: saved, and looked at where it is an image or text.

import { Problem, send, storedKey } from "./api.js";
import { sayProblem } from "./actions.js";
import { bytes, el } from "./dom.js";

const MOST_TEXT = 64 * 1024;
const LARGEST_IMAGE = 32 * 1024 * 1024;

export function outputPanel(task, signal) {
  const path = `/tasks/${task.task_id}/output`;
  const name = task.output_file_path.split("/").pop();
  const size = el("span", { class: "hint" });
  const content = el("div", { class: "preview" });
  // A link brings no key.
  const save = storedKey()
    ? el("button", { type: "button", class: "small", onclick: () => download(path, name) }, "Download")
    : el("a", { class: "button small", href: path, download: name }, "Download");
  preview(path, name, content, size, signal).catch((error) => {
    if (!(error instanceof Problem)) return;
    save.remove();
    content.replaceChildren(el("p", { class: "note" }, error.message));
  });
  return el("section", { class: "panel", "aria-label": "Output" },
    el("div", { class: "panel-head" }, el("h2", {}, "Output"), el("code", { class: "path" }, name), size, save), content);
}

async function preview(path, name, content, size, signal) {
  const head = await send(path, { headers: { Range: `bytes=0-${MOST_TEXT - 1}` }, signal });
  if (head.status === 416) return void (size.textContent = "empty");
  if (!head.ok) throw new Problem(head.status, await head.json().catch(() => null));
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
