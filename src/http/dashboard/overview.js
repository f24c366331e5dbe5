// The server at a glance: what runs and waits now, and the last hour.

import { get, whenBack } from "./api.js";
import { STATUSES, el, setText, svg } from "./dom.js";

const REFRESH_EVERY = 2000;
const MINUTES = 60;
const [WIDTH, HEIGHT] = [600, 120];

export function overviewView(place, signal) {
  const tiles = el("div", { class: "tiles" });
  const plots = el("div", { class: "plots" });
  place.append(el("h1", {}, "Overview"), tiles, plots);
  const figures = new Map();
  let drawn;

  function showNumber(name, value, href) {
    if (!figures.has(name)) {
      const figure = el("strong", {});
      figures.set(name, figure);
      tiles.append(el("a", { class: `tile ${name}`, href }, figure, el("span", {}, name)));
    }
    setText(figures.get(name), value.toLocaleString());
    figures.get(name).classList.toggle("none", value === 0);
  }

  async function refresh() {
    if (document.hidden) return;
    try {
      const stats = await get("/stats", signal);
      for (const status of STATUSES) showNumber(status, stats.counts[status] ?? 0, `/dashboard?status=${status}`);
      const minutes = wholeHour(stats.minutes);
      const key = JSON.stringify(minutes);
      if (key === drawn) return;
      drawn = key;
      plots.replaceChildren(
        plot("Throughput", minutes, [["completed", "completed"], ["submitted", "submitted"]]),
        plot("Failures", minutes, [["failed", "failed"], ["cancelled", "cancelled"]]),
      );
    } catch (error) {
      if (error.status === 404) await refreshWithoutStats();
    }
  }

  // What a server without figures can say.
  async function refreshWithoutStats() {
    const ready = await get("/health/ready", signal).catch(() => undefined);
    if (!ready) return;
    showNumber("pending", ready.pending, "/dashboard?status=pending");
    showNumber("running", ready.running, "/dashboard?status=running");
  }

  const timer = setInterval(refresh, REFRESH_EVERY);
  signal.addEventListener("abort", () => clearInterval(timer));
  signal.addEventListener("abort", whenBack(refresh));
  refresh();
}

// A server that began less than an hour ago tells of fewer minutes.
function wholeHour(minutes) {
  const none = { submitted: 0, completed: 0, failed: 0, cancelled: 0 };
  return [...Array(Math.max(0, MINUTES - minutes.length)).fill(none), ...minutes];
}

// Bars for the first series, a line for the second, one step a minute.
function plot(title, minutes, series) {
  const most = Math.max(1, ...minutes.flatMap((minute) => series.map(([field]) => minute[field])));
  const top = niceAbove(most);
  const step = WIDTH / minutes.length;
  const y = (value) => HEIGHT - (value / top) * HEIGHT;
  const [[bars], [line]] = series;
  const rects = minutes.map((minute, index) => {
    const height = HEIGHT - y(minute[bars]);
    // What is there is seen, however small beside the largest.
    const seen = minute[bars] > 0 ? Math.max(height, 2) : 0;
    return svg("rect", { class: `bar-${bars}`, x: (index * step + 1).toFixed(1), width: (step - 2).toFixed(1), y: (HEIGHT - seen).toFixed(1), height: seen.toFixed(1) });
  });
  const points = minutes.map((minute, index) => `${(index * step + step / 2).toFixed(1)},${y(minute[line]).toFixed(1)}`);
  const sums = series.map(([field, name]) => [field, name, minutes.reduce((sum, minute) => sum + minute[field], 0)]);
  const words = `${title} in the last hour: ${sums.map(([, name, sum]) => `${sum} ${name}`).join(", ")}; at most ${most} in a minute.`;
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": words, preserveAspectRatio: "none" },
    [0, 0.5, 1].map((part) => svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: y(part * top), y2: y(part * top) })),
    rects, svg("polyline", { class: `line-${line}`, points: points.join(" ") }));
  const legend = el("p", { class: "legend" }, sums.map(([field, name, sum]) => el("span", { class: `key-${field}` }, `${sum.toLocaleString()} ${name}`)));
  return el("section", { class: "panel plot", "aria-label": title },
    el("div", { class: "panel-head" }, el("h2", {}, title), legend),
    el("div", { class: "axes" }, el("span", { class: "top-value" }, top.toLocaleString()), picture),
    el("p", { class: "span-of-time" }, el("span", {}, "an hour ago"), el("span", {}, "now")));
}

// 1, 2 or 5 times a power of ten.
function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((nice) => nice >= value);
}
