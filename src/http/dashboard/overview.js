// The server at a glance: what runs and waits now, and the last hour.

import { get, whenBack } from "./api.js";
import { STATUSES, el, setText, svg } from "./dom.js";

const REFRESH_EVERY = 2000;
const MINUTES = 60;
const [WIDTH, HEIGHT, GAP] = [600, 120, 2];

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
        plot("Throughput", minutes, ["submitted", "completed"]),
        plot("Failures", minutes, ["failed", "cancelled"]),
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

// For each minute a bar of each series, side by side.
function plot(title, minutes, series) {
  const most = Math.max(1, ...minutes.flatMap((minute) => series.map((field) => minute[field])));
  const top = niceAbove(most);
  const step = WIDTH / minutes.length;
  const width = (step - GAP) / series.length;
  const bars = minutes.flatMap((minute, index) => series.map((field, place) => {
    // What is there is seen, however small beside the largest.
    const height = minute[field] > 0 ? Math.max((minute[field] / top) * HEIGHT, 2) : 0;
    return svg("rect", { class: field, x: index * step + place * width, width, y: HEIGHT - height, height });
  }));
  const grid = [0, 0.5, 1].map((part) => svg("line", { x1: 0, x2: WIDTH, y1: part * HEIGHT, y2: part * HEIGHT }));
  const sums = series.map((field) => [field, minutes.reduce((sum, minute) => sum + minute[field], 0)]);
  const words = `${title} in the last hour: ${sums.map(([field, sum]) => `${sum} ${field}`).join(", ")}; at most ${most} in a minute.`;
  const legend = el("p", { class: "legend" }, sums.map(([field, sum]) => el("span", { class: field }, `${sum.toLocaleString()} ${field}`)));
  return el("section", { class: "panel plot", "aria-label": title },
    el("div", { class: "panel-head" }, el("h2", {}, title), legend),
    el("p", { class: "axis" }, `${top.toLocaleString()} a minute`),
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": words, preserveAspectRatio: "none" }, grid, bars),
    el("p", { class: "axis" }, el("span", {}, "an hour ago"), el("span", {}, "now")));
}

// 1, 2 or 5 times a power of ten.
function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((nice) => nice >= value);
}
