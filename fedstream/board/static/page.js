// What all parts of the page share: texts, numbers, elements, tables. Text goes into the page as text only.

export const lang = document.documentElement.lang;
const texts = await (await fetch(`/static/${lang}.json`)).json();

/** The text of a key, with {name} replaced by the values. */
export function t(key, values = {}) {
  if (!(key in texts)) throw new Error(`no text ${key}`);
  return texts[key].replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

const formats = {};
/** A number as the language writes it; "–" for none. */
export function number(value, digits = 0) {
  if (value === null || value === undefined) return "–";
  formats[digits] ??= new Intl.NumberFormat(lang, { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return formats[digits].format(value);
}

export const rate = (value) => t("per-second", { n: number(value, value > 0 && value < 10 ? 1 : 0) });

/** So many seconds, in the unit that fits. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return t("milliseconds", { n: number(seconds * 1000) });
  if (seconds < 120) return t("seconds", { n: number(seconds, seconds < 10 ? 1 : 0) });
  if (seconds < 7200) return t("minutes", { n: number(seconds / 60) });
  return t("hours", { n: number(seconds / 3600) });
}

/** So many bytes, in the unit that fits. */
export function bytes(size) {
  const units = ["B", "kB", "MB", "GB"].map((unit) => (lang === "fr" ? unit.replace("B", "o") : unit));
  let place = 0;
  while (size >= 1000 && place < units.length - 1) [size, place] = [size / 1000, place + 1];
  return `${number(size, place && size < 100 ? 1 : 0)} ${units[place]}`;
}

export const time = (seconds) => new Date(seconds * 1000).toLocaleTimeString(lang, { hourCycle: "h23" });

/** An element with attributes and children; a text child stays text. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same, of a picture. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return element;
}

const shown = new WeakMap();
/** Put children into an element, unless it shows the same already (a reader's place and selection stay). */
export function show(element, ...children) {
  const all = children.map((child) => child.outerHTML ?? child).join("");
  if (shown.get(element) === all) return;
  shown.set(element, all);
  const open = [...element.querySelectorAll("details")].map((each) => each.open);
  element.replaceChildren(...children);
  element.querySelectorAll("details").forEach((each, i) => { each.open = open[i] ?? each.open; });
}

/** A table. Columns: [heading, cell of a row, "number" or "raw" or nothing]. */
export function table(columns, rows, caption, mark) {
  const head = columns.map(([heading, , kind]) => el("th", { scope: "col", class: kind }, heading));
  const body = rows.map((row) => el("tr", { class: mark?.(row) },
    ...columns.map(([, cell, kind]) => el("td", { class: kind }, cell(row) ?? "–"))));
  if (!rows.length) return el("p", { class: "note" }, t("nothing-yet"));
  return el("table", {}, caption && el("caption", {}, caption), el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
}

export const state = (level, text) => el("span", { class: `state ${level}` }, text);
