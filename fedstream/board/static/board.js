// The page: takes the stream of events, and shows the tab that is chosen.

import { bytes, duration, el, lang, number, rate, show, state, t, table, time } from "./page.js";
import { drawPicture, NODE_LEVELS, partsTable, troubles } from "./picture.js";
import { chart, spark } from "./charts.js";
import { CARDS } from "./cards.js";
import { followAddress, placeLink } from "./follow.js";
import { showRollback } from "./rollback.js";

const MOST = { rounds: 1000, letters: 200, events: 500 };
const POINTS = 60;
const MOST_TROUBLES = 8;
const $ = (id) => document.getElementById(id);
const lists = { rounds: [], letters: [], events: [] };
const speeds = new Map(); // topic -> its last rates
let snapshot = null;
let tab = "overview";

// --- what comes

function listen() {
  const stream = new EventSource("/stream");
  stream.onopen = () => {
    for (const name of Object.keys(lists)) lists[name] = []; // all are sent again to a new connection
    live("good", "live");
  };
  stream.onerror = () => live("bad", "lost");
  for (const name of Object.keys(lists)) {
    stream.addEventListener(name, (event) => {
      lists[name] = [...lists[name], ...JSON.parse(event.data)].slice(-MOST[name]);
    });
  }
  stream.addEventListener("state", (event) => {
    snapshot = JSON.parse(event.data);
    if (snapshot.run) lists.rounds = lists.rounds.filter((row) => row.run_id === snapshot.run.run_id);
    for (const row of snapshot.topics) speeds.set(row.topic, [...(speeds.get(row.topic) ?? []), row.per_second].slice(-POINTS));
    render();
  });
}

function live(level, key) {
  $("live").className = level;
  if ($("live").textContent !== t(key)) $("live").textContent = t(key);
}

// --- what is shown

const VIEWS = { overview, learning, streams, letters, follow, try: cards };

function choose() {
  const [wanted, ...place] = location.hash.slice(1).split("/");
  tab = wanted in VIEWS ? wanted : "overview";
  for (const name of Object.keys(VIEWS)) $(`tab-${name}`).hidden = name !== tab;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${tab}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  $("language").search = `?lang=${lang === "fr" ? "en" : "fr"}`;
  $("language").hash = location.hash || `#${tab}`;
  document.title = `${document.querySelector(`nav a[href="#${tab}"]`).firstChild.textContent.trim()} – fedstream`;
  window.scrollTo(0, 0);
  if (tab === "follow") followAddress(place);
  render();
}

function render() {
  if (!snapshot) return;
  const count = Object.values(snapshot.letter_counts).reduce((a, b) => a + b, 0);
  $("letter-count").hidden = !count;
  $("letter-count").textContent = number(count);
  VIEWS[tab]();
}

function runLine() {
  const run = snapshot.run;
  if (!run) return t("no-run");
  const open = Math.max(snapshot.at - run.opened_at / 1000, 0);
  return t("run-line", { run: run.run_id, model: run.model, strategy: run.strategy, mode: run.mode, round: number(run.round), open: duration(open), deadline: duration(run.deadline_seconds) });
}

function overview() {
  $("run").textContent = runLine();
  const found = troubles(snapshot);
  const more = found.length - MOST_TROUBLES;
  show($("troubles"), ...found.slice(0, MOST_TROUBLES).map(([level, part, text, remedy, said]) =>
    el("li", { class: level }, el("strong", {}, t("of-part", { part })), ` ${text} `, said && el("q", {}, said), said && " ", el("code", {}, remedy))), more > 0 ? el("li", {}, t("more-troubles", { n: more })) : "");
  show($("picture"), ...drawPicture(snapshot));
  const small = matchMedia("(max-width: 700px)").matches;
  show($("flow"), el("details", { open: small }, el("summary", {}, t("as-table")), el("div", { class: "wide" }, partsTable(snapshot))));
  const { newest, checked, wrong } = snapshot.squares;
  show($("squares"), ...(checked ? [
    el("p", { class: wrong ? "bad" : "good" }, t(wrong ? "squares-wrong" : "squares-right", { n: number(checked), w: number(wrong) })),
    el("p", { class: "raw" }, newest.map(([n, square]) => `(${n}, ${square})`).join(" ")),
  ] : [el("p", { class: "note" }, t("squares-none")), el("pre", {}, "make run-squares-kafka run-bridge")]));
  const alerts = snapshot.alerts;
  show($("alerts"), ...(alerts ? [
    el("p", {}, t("alerts-line", { share: number(100 * alerts.share, 1), n: number(alerts.sampled), d: duration(alerts.delay_seconds.p95), v: number(alerts.version) })),
    ...(alerts.model_age_seconds > 60 ? [el("p", { class: "warn" }, t("alerts-old", { s: duration(alerts.model_age_seconds) }))] : []),
    table([
      [t("reading"), (row) => el("div", {}, row.sensor_id, el("small", {}, placeLink(row.reading)))],
      [t("probability"), (row) => number(row.probability, 3), "number"],
      [t("state"), (row) => (row.alert ? state("bad", t("alarm")) : "")],
    ], alerts.newest.slice(0, 5)),
  ] : [el("p", { class: "note" }, t("alerts-none")), el("pre", {}, "make run-alerts")]));
  show($("events"), table([
    [t("time"), (row) => time(row.at)],
    [t("event"), (row) => el("span", {}, el("strong", {}, row.kind), ` ${row.node_id ?? ""} ${row.detail}`)],
  ], lists.events.slice(-5).reverse()));
}

function remarks(row) {
  const counts = Object.entries(row.counts).filter(([kind, count]) => count && kind !== "accepted").map(([kind, count]) => `${t(`kind-${kind}`)}: ${number(count)}`);
  if (row.failed) counts.push(t("failed", { why: row.failed }));
  if (row.restored_from !== null) counts.push(t("rollback-to", { v: number(row.restored_from) }));
  return counts.join(", ");
}

function learning() {
  $("learning-run").textContent = runLine();
  show($("nodes"), table([
    [t("node"), (row) => row.node],
    [t("state"), (row) => state(NODE_LEVELS[row.state], t(`state-${row.state}`))],
    [t("weight"), (row) => number(row.weight, 4), "number"],
    [t("readings"), (row) => number(row.readings), "number"],
    [t("rejected"), (row) => number(row.rejected), "number"],
    ["F1", (row) => number(row.f1, 4), "number"],
    [t("loss"), (row) => number(row.loss, 4), "number"],
    [t("last-answer"), (row) => (row.answered ? t("round-n", { n: number(row.answered) }) : "–")],
  ], snapshot.nodes));
  const rounds = lists.rounds.toSorted((a, b) => a.round - b.round);
  for (const measure of ["f1", "loss"]) {
    const series = { [t("all-nodes")]: rounds.filter((row) => row[measure] !== null).map((row) => [row.round, row[measure]]) };
    for (const row of rounds) for (const [node, scores] of Object.entries(row.node_scores)) (series[node] ??= []).push([row.round, scores[measure]]);
    show($(`chart-${measure}`), ...chart(series, t(`${measure}-title`), measure === "f1" ? 1 : undefined));
  }
  const all = { node: t("all-nodes"), examples: snapshot.nodes.reduce((sum, row) => sum + row.examples, 0), bytes: snapshot.bytes, total: true };
  const sent = (row) => row.bytes.updates + row.bytes.models;
  const saved = (row) => {
    if (!row.bytes.readings || !sent(row)) return "–";
    const ratio = row.bytes.readings / sent(row);
    return ratio >= 1 ? t("times-less", { n: number(ratio, 1) }) : t("times-more", { n: number(1 / ratio, 1) });
  };
  show($("saved"), table([
    [t("node"), (row) => row.node],
    [t("learned"), (row) => number(row.examples), "number"],
    [t("stayed"), (row) => bytes(row.bytes.readings), "number"],
    [t("updates-sent"), (row) => bytes(row.bytes.updates), "number"],
    [t("models-received"), (row) => bytes(row.bytes.models), "number"],
    [t("so"), saved],
  ], snapshot.nodes.length ? [all, ...snapshot.nodes] : [], null, (row) => row.total && "total"));
  $("saved-note").textContent = t("saved-note", { b: number(snapshot.bytes.reading, 1) });
  show($("rounds"), table([
    [t("round"), (row) => number(row.round), "number"],
    [t("time"), (row) => time(row.closed_at / 1000)],
    [t("version"), (row) => number(row.version), "number"],
    [t("nodes"), (row) => number(row.nodes), "number"],
    [t("learned"), (row) => number(row.num_examples), "number"],
    [t("loss"), (row) => number(row.loss, 4), "number"],
    ["F1", (row) => number(row.f1, 4), "number"],
    [t("recall"), (row) => number(row.recall, 4), "number"],
    [t("false-alarms"), (row) => number(row.false_alarm_rate, 4), "number"],
    [t("remarks"), remarks],
  ], rounds.slice(-200).reverse()));
  show($("versions"), table([
    [t("version"), (row) => number(row.version), "number"],
    [t("time"), (row) => time(row.opened_at / 1000)],
    [t("strategy"), (row) => row.strategy],
    ["F1", (row) => number(row.f1, 4), "number"],
    [t("loss"), (row) => number(row.loss, 4), "number"],
    [t("mark"), (row) => [row.best && `★ ${t("best")}`, row.current && t("current"), row.restored_from !== null && t("rollback-to", { v: number(row.restored_from) })].filter(Boolean).join(", ")],
  ], snapshot.versions));
  showRollback(snapshot.run);
}

function streams() {
  const letters = snapshot.letter_counts;
  const errors = (query) => {
    const topics = Object.keys(query.lag_records);
    if (!topics.length || !query.records) return null;
    return (100 * topics.reduce((sum, topic) => sum + (letters[topic] ?? 0), 0)) / query.records;
  };
  show($("table41"), table([
    [t("query"), (row) => row.query],
    [t("mean-batch"), (row) => (row.batch_seconds ? t("seconds", { n: number(row.batch_seconds.mean, 2) }) : "–"), "number"],
    [t("p95-batch"), (row) => (row.batch_seconds ? t("seconds", { n: number(row.batch_seconds.p95, 2) }) : "–"), "number"],
    [t("rate"), (row) => rate(row.per_second), "number"],
    [t("error-rate"), (row) => (errors(row) === null ? "–" : t("percent", { n: number(errors(row), 2) })), "number"],
  ], snapshot.queries));
  show($("queries"), table([
    [t("query"), (row) => row.query],
    [t("micro-batch"), (row) => (row.micro_batch < 0 ? "–" : number(row.micro_batch)), "number"],
    [t("ended-ago"), (row) => (row.micro_batch < 0 ? "–" : duration(Math.max(snapshot.at - row.finished_at, 0))), "number"],
    [t("reads"), (row) => Object.keys(row.lag_records).join(", ") || t("socket")],
    [t("records-done"), (row) => number(row.records), "number"],
    [t("lag-records"), (row) => number(Object.values(row.lag_records).reduce((a, b) => a + b, 0)), "number"],
    [t("lag-seconds"), (row) => duration(row.lag_seconds), "number"],
  ], snapshot.queries));
  show($("topics"), table([
    [t("topic"), (row) => row.topic],
    [t("records-there"), (row) => number(row.records), "number"],
    [t("rate"), (row) => rate(row.per_second), "number"],
    [t("last-minute"), (row) => spark(speeds.get(row.topic) ?? [])],
    [t("last-record"), (row) => el("span", {}, row.last.slice(0, 120), row.last && " ", row.topic.startsWith("sensor-data") && placeLink(row.last_place)), "raw"],
  ], snapshot.topics));
}

function letters() {
  const counts = Object.entries(snapshot.letter_counts).sort((a, b) => b[1] - a[1]);
  show($("letter-counts"), el("p", {}, counts.map(([topic, count]) => `${topic}: ${number(count)}`).join(" · ")));
  show($("letter-rows"), table([
    [t("time"), (row) => time(row.at)],
    [t("place"), (row) => placeLink(`${row.topic}[${row.partition}]@${row.offset}`)],
    [t("refused-by"), (row) => row.by || "–"],
    [t("reason"), (row) => row.reason],
    [t("original"), (row) => `${row.text}${row.bytes > row.text.length ? "…" : ""}`, "raw"],
  ], lists.letters.slice(-100).reverse()));
}

function follow() {
  const readings = snapshot.topics.filter((row) => row.topic.startsWith("sensor-data"));
  show($("follow-topics"), ...readings.map((row) => el("option", { value: row.topic })));
  const newest = readings.map((row) => row.last_place).filter(Boolean).slice(0, 3);
  const alarm = (snapshot.alerts?.newest ?? []).filter((row) => row.alert).slice(0, 1).map((row) => row.reading).filter(Boolean);
  const refused = lists.letters.slice(-1).map((row) => `${row.topic}[${row.partition}]@${row.offset}`);
  const links = [["follow-newest", newest], ["follow-alarm", alarm], ["follow-last-letter", refused]];
  show($("follow-links"), ...links.filter(([, places]) => places.length).map(([key, places]) =>
    el("li", {}, t(key), ...places.flatMap((place) => [" ", placeLink(place)]))));
}

function cards() {
  const runner = document.body.dataset.runner;
  show($("cards"), ...CARDS.map(({ key, commands, see }) => el("article", {},
    el("h3", {}, t(`card-${key}`)), el("p", {}, t(`card-${key}-about`)),
    ...(commands[runner] ?? commands.all).map((command) => el("div", {}, el("pre", {}, command), copyButton(command))),
    el("p", {}, el("a", { href: `#${see}` }, t(`card-${key}-see`))))));
}

function copyButton(command) {
  const button = el("button", { type: "button", "data-copy": command }, t("copy"));
  return button;
}

document.addEventListener("click", async (event) => {
  const command = event.target.dataset?.copy;
  if (!command) return;
  try {
    await navigator.clipboard.writeText(command);
    event.target.textContent = t("copied");
  } catch {
    getSelection().selectAllChildren(event.target.previousSibling); // the browser does not let us: it is marked instead
  }
});
window.addEventListener("hashchange", choose);
choose();
listen();
