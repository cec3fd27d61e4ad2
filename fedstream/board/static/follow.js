// The tab "follow": asks what became of the record at a place, and asks again while something is still to come.

import { el, number, show, t, table, time } from "./page.js";

const AGAIN_MS = 1500, MOST_TIMES = 40;
const DIGITS = { probability: 3, weight: 4 };
const UNTOLD = /-(parted|shared|source|gap|unsure|perhaps|not-known|not-found|unreadable)$/;
const form = document.getElementById("follow-form");
const answer = document.getElementById("follow-steps");
let asked = 0; // a number for each place that was asked for: an old answer changes nothing

/** A place as a link to this tab, from "topic[0]@12" or "topic/0/12". */
export function placeLink(place) {
  const parts = /^(.+?)(?:\[(\d+)\]@|\/(\d+)\/)(\d+)$/.exec(place ?? "");
  if (!parts) return place ?? "";
  const [topic, partition, offset] = [parts[1], parts[2] ?? parts[3], parts[4]];
  return el("a", { href: `#follow/${encodeURIComponent(topic)}/${partition}/${offset}` }, `${topic}[${partition}]@${offset}`);
}

/** Follow the place of an address "#follow/topic/partition/offset"; without one nothing is asked. */
export function followAddress(parts) {
  const mine = ++asked;
  const [topic, partition, offset] = parts.map(decodeURIComponent);
  if (topic) [form.topic.value, form.partition.value, form.offset.value] = [topic, partition ?? "0", offset ?? ""];
  if (!offset) return show(answer);
  show(answer, el("p", { class: "note" }, t("follow-asking")));
  ask(new URLSearchParams({ topic, partition, offset }), mine, 0);
}

async function ask(place, mine, times) {
  let open = false;
  try {
    const response = await fetch(`/api/follow?${place}`);
    const said = response.ok ? await response.json() : await response.text();
    if (mine !== asked) return;
    open = response.ok ? said.is_open : response.status === 503;
    show(answer, response.ok ? steps(said) : el("p", { class: "warn" }, said));
  } catch {
    open = true; // the board is away, as the head of the page says
  }
  if (open && times < MOST_TIMES) setTimeout(() => mine === asked && ask(place, mine, times + 1), AGAIN_MS);
}

function steps(said) {
  const begin = said.steps[0].at;
  const shown = (key, value) => (typeof value === "number" ? number(value, DIGITS[key] ?? 0) : value);
  const sentence = (row) => t(`follow-${row.says}`, Object.fromEntries(Object.entries(row).map(([key, value]) => [key, shown(key, value)])));
  return el("div", {}, table([
    [t("follow-step"), (row) => el("strong", {}, t(`step-${row.step}`))],
    [t("time"), (row) => row.at !== null && el("span", {}, time(row.at), row !== said.steps[0] && el("small", {}, t("follow-after", { n: number(row.at - begin, 3) })))],
    [t("follow-what"), (row) => el("div", { class: UNTOLD.test(row.says) && "warn" }, sentence(row), row.says === "reading" && el("q", { class: "raw" }, row.text), row.reason && el("q", {}, row.reason), row.place && el("small", {}, row.place))],
  ], said.steps, said.place));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const where = [form.topic, form.partition, form.offset].map((field) => encodeURIComponent(field.value.trim())).join("/");
  if (location.hash === `#follow/${where}`) followAddress(where.split("/"));
  else location.hash = `follow/${where}`;
});
