// Line charts by hand: a curve for all nodes, one for each node, and a table with the same numbers behind them.

import { el, number, svg, t, table } from "./page.js";

const WIDTH = 560, HEIGHT = 240, LEFT = 58, RIGHT = 8, TOP = 10, BOTTOM = 28;
const DASHES = ["", "6 3", "2 3", "8 3 2 3", "4 4", "10 4"];
const MOST_LINES = 6;

/** A chart of series {name: [[round, value], ...]}, whose first one is that of all nodes. */
export function chart(series, label, fixedTop) {
  const names = Object.keys(series).slice(0, MOST_LINES);
  const points = names.flatMap((name) => series[name]);
  if (!points.length) return [el("p", { class: "note" }, t("nothing-yet"))];
  const [first, last] = [Math.min(...points.map((p) => p[0])), Math.max(...points.map((p) => p[0]))];
  const step = fixedTop ? fixedTop / 4 : roundUp((Math.max(...points.map((p) => p[1])) || 1) / 4);
  const top = 4 * step;
  const digits = Math.max(fixedTop ? 2 : 0, -Math.floor(Math.log10(step)));
  const x = (round) => LEFT + ((round - first) / Math.max(last - first, 1)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => TOP + (1 - Math.min(value, top) / top) * (HEIGHT - TOP - BOTTOM);
  const marks = [0, 0.25, 0.5, 0.75, 1].map((share) => share * top);
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label },
    ...marks.map((value) => svg("g", {},
      svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
      svg("text", { class: "soft", x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, number(value, digits)))),
    ...[...new Set([first, Math.round((first + last) / 2), last])].map((round) =>
      svg("text", { class: "soft", x: x(round), y: HEIGHT - 8, "text-anchor": round === first ? "start" : round === last ? "end" : "middle" }, t("round-n", { n: number(round) }))),
    ...names.map((name, i) => line(series[name], i, x, y))); // the thin ones over the thick one
  const legend = el("ul", { class: "legend" }, ...names.map((name, i) =>
    el("li", {}, svg("svg", { width: 28, height: 8, "aria-hidden": "true" },
      svg("line", { class: `series s${i}${i ? "" : " all"}`, "stroke-dasharray": DASHES[i], x1: 0, x2: 28, y1: 4, y2: 4 })), name)));
  const all = Object.keys(series).length;
  return [picture, legend, ...(all > MOST_LINES ? [el("p", { class: "note" }, t("more-nodes", { n: all - MOST_LINES }))] : []), behind(series, names)];
}

/** The next of 1, 2, 5, 10, 20 ... and 0.1, 0.2, 0.5 ... that is no smaller. */
function roundUp(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return unit * [1, 2, 5, 10].find((each) => each * unit >= value * 0.999);
}

function line(points, i, x, y) {
  const style = { class: `series s${i}${i ? "" : " all"}`, "stroke-dasharray": DASHES[i] };
  if (points.length === 1) return svg("circle", { ...style, cx: x(points[0][0]), cy: y(points[0][1]), r: 3 });
  return svg("polyline", { ...style, points: points.map(([round, value]) => `${x(round).toFixed(1)},${y(value).toFixed(1)}`).join(" ") });
}

function behind(series, names) {
  const found = new Map();
  for (const name of names) for (const [round, value] of series[name]) found.set(round, { ...found.get(round), [name]: value });
  const rows = [...found.keys()].sort((a, b) => b - a).slice(0, 50);
  return el("details", {}, el("summary", {}, t("as-table")),
    el("div", { class: "wide tall", tabindex: "0", role: "region", "aria-label": t("as-table") }, table([
      [t("round"), (round) => number(round), "number"],
      ...names.map((name) => [name, (round) => number(found.get(round)[name], 4), "number"]),
    ], rows)));
}

/** A small curve of the last values, without a table: the numbers stand beside it. */
export function spark(values) {
  const top = Math.max(...values, 1e-9);
  const points = values.map((value, i) => `${(i * 100) / Math.max(values.length - 1, 1)},${(20 - (18 * value) / top).toFixed(1)}`);
  return svg("svg", { viewBox: "0 0 100 22", width: 100, height: 22, "aria-hidden": "true" },
    svg("polyline", { class: "series s1", points: points.join(" ") }));
}
