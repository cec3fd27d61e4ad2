// The picture of the overview: edge -> Kafka -> fog -> Kafka -> cloud, and back. A list of the parts stands behind it.

import { duration, el, number, rate, state, svg, t, table } from "./page.js";

const MOST_NODES = 4;
export const NODE_LEVELS = { answered: "good", learning: "good", counting: "good", late: "warn", silent: "bad", quarantined: "warn" };

/** Why a part is not well: its level, a text, what it said itself, and what to type. */
export function troubleOf(snapshot, name) {
  const job = snapshot.jobs.find((each) => each.name === name);
  const found = job?.trouble;
  if (!job) return { level: "off", text: t("not-started"), remedy: startOf(name) };
  const said = job.error?.text;
  if (!found) return said ? { level: "warn", text: t("trouble-again", { s: duration(job.error.seconds) }), said, remedy: `make logs S=${name}` } : null;
  const values = { s: duration(found.seconds), q: found.query, n: number(found.behind) };
  if (found.kind === "silent" && !found.behind) return { level: "off", text: t("trouble-stopped", values), remedy: startOf(name) };
  return { level: "bad", text: t(`trouble-${found.kind}`, values), said, short: t(`box-${found.kind}`, values), remedy: `make ps; make logs S=${name}` };
}

/** Sensors are no job of Spark's: they are known by what they send, or by their last word. */
function sensorsTrouble(snapshot) {
  if (snapshot.jobs.some((job) => job.name === "sensors")) return troubleOf(snapshot, "sensors");
  return snapshot.rates.readings ? null : { level: "off", text: t("no-readings"), remedy: "make run-producer" };
}

function startOf(name) {
  const jobs = { cloud: "make run-cloud", alerts: "make run-alerts", sensors: "make run-producer", squares: "make run-squares", "squares-kafka": "make run-squares-kafka run-bridge" };
  return name.startsWith("fog-") ? "make run-fog" : jobs[name] ?? `make logs S=${name}`;
}

/** All that is not well, as [level, part, text, remedy, what the part said itself]. */
export function troubles(snapshot) {
  const found = snapshot.services.filter((each) => each.trouble).map((each) => ["bad", each.name, each.trouble, "make ps; make doctor"]);
  for (const { name } of snapshot.jobs) {
    const trouble = troubleOf(snapshot, name);
    if (trouble) found.push([trouble.level === "bad" ? "bad" : "warn", name, trouble.text, trouble.remedy, trouble.said]);
  }
  if (!snapshot.jobs.length) found.push(["warn", t("jobs"), t("no-jobs"), "make run-producer run-fog run-cloud"]);
  else if (!snapshot.rates.readings && !snapshot.jobs.some((job) => job.name === "sensors")) found.push(["warn", t("sensors"), t("no-readings"), "make run-producer"]);
  for (const node of snapshot.nodes) {
    if (node.state === "quarantined") found.push(["warn", node.node, t("trouble-quarantined", { n: node.kept_out_until }), "make logs S=cloud"]);
    if (node.state === "late") found.push(["warn", node.node, t("trouble-late", { n: snapshot.run.round }), `make logs S=${node.node}`]);
  }
  return found;
}

/** The parts, from the edge to the cloud: [name, trouble, what it does now, records a second, lag in records, in seconds]. */
function parts(snapshot) {
  const lags = (job) => snapshot.queries.filter((query) => query.job === job && !query.may_wait);
  const lag = (job) => lags(job).reduce((sum, query) => sum + Object.values(query.lag_records).reduce((a, b) => a + b, 0), 0);
  const behind = (job) => Math.max(0, ...lags(job).map((query) => query.lag_seconds));
  const speed = (job) => lags(job)[0]?.per_second ?? 0;
  const fog = snapshot.nodes.map((node) => {
    const job = snapshot.jobs.some((each) => each.name === node.node) ? node.node : snapshot.jobs.find((each) => each.name.startsWith("fog-"))?.name ?? node.node;
    const about = t("node-about", { w: number(node.weight, 4), n: number(node.readings) });
    const count = t("node-readings", { n: number(node.readings), state: t(`state-${node.state}`) });
    return { name: node.node, about, weight: t("node-weight", { w: number(node.weight, 4) }), count, more: t(`state-${node.state}`), state: NODE_LEVELS[node.state], trouble: troubleOf(snapshot, job), rate: speed(job), lag: lag(job), seconds: behind(job) };
  });
  const run = snapshot.run;
  const about = snapshot.weight ? t("cloud-about", { w: number(snapshot.weight.global_weight, 4) }) : t("no-weight");
  const more = run ? t("round-about", { r: number(run.round), v: number(run.version) }) : t("no-run");
  const cloud = { name: "cloud", about, more, trouble: troubleOf(snapshot, "cloud"), rate: speed("cloud"), lag: lag("cloud"), seconds: behind("cloud") };
  return { fog, cloud, lag, behind, speed };
}

const level = (part) => part.trouble?.level ?? "good";

function box(x, y, width, height, part, lines) {
  const style = level(part) === "good" ? "" : level(part);
  const [title, first, step] = height < 70 ? [20, 38, 16] : [24, 44, 18];
  return svg("g", {},
    svg("rect", { class: `box ${style}`, x, y, width, height, rx: 10 }),
    svg("text", { class: "strong", x: x + 12, y: y + title }, part.name),
    ...lines.map(([text, kind], i) => svg("text", { class: kind, x: x + 12, y: y + first + step * i }, text)));
}

function kafka(x, y, width, height, name, text) {
  return svg("g", {},
    svg("rect", { class: "kafka", x, y, width, height, rx: 18 }),
    svg("text", { x: x + width / 2, y: y + height / 2 - 2, "text-anchor": "middle" }, name),
    svg("text", { class: "soft", x: x + width / 2, y: y + height / 2 + 16, "text-anchor": "middle" }, text));
}

/** An arrow along points; it moves with its rate, faster where more flows. */
function arrow(points, perSecond) {
  const [[ax, ay], [bx, by]] = points.slice(-2);
  const angle = (Math.atan2(by - ay, bx - ax) * 180) / Math.PI;
  const moving = perSecond > 0 ? "moving" : "";
  const line = svg("polyline", { class: `arrow ${moving}`, points: points.map((point) => point.join()).join(" ") });
  line.style.animationDuration = `${Math.max(0.4, 3 - Math.log10(1 + perSecond))}s`;
  const head = svg("path", { class: `head ${moving}`, d: "M0 0-10-6V6z", transform: `translate(${bx} ${by}) rotate(${angle})` });
  return svg("g", {}, line, head);
}

export function drawPicture(snapshot) {
  const { fog, cloud, speed } = parts(snapshot);
  const rates = snapshot.rates;
  const total = snapshot.topics.reduce((sums, row) => ({ ...sums, [row.topic]: row.records }), {});
  const readings = snapshot.topics.filter((row) => row.topic.startsWith("sensor-data")).reduce((sum, row) => sum + row.records, 0);
  const trouble = (node) => node.trouble || node.state !== "good";
  const chosen = fog.length > MOST_NODES ? [...fog.filter(trouble), ...fog.filter((node) => !trouble(node))] : fog; // first what is not well
  const drawn = fog.length ? chosen.slice(0, MOST_NODES) : [{ name: "fog-1", about: "", more: "", trouble: troubleOf(snapshot, "fog-1"), lag: 0, seconds: 0 }];
  const height = Math.min(104, (290 - 12 * (drawn.length - 1)) / drawn.length);
  const top = 40 + (290 - height * drawn.length - 12 * (drawn.length - 1)) / 2;
  const small = height < 100;
  const sensors = { name: t("sensors"), trouble: sensorsTrouble(snapshot) };
  const alerts = { name: "alerts", trouble: troubleOf(snapshot, "alerts") };
  const lagText = (part) => [t("lag-about", { n: number(part.lag), s: duration(part.seconds) }), part.seconds > 30 ? "soft bad" : "soft"];
  const titles = [["edge", 70], ["Kafka", 250], ["fog", 470], ["Kafka", 690], ["cloud", 890]];
  const children = titles.map(([name, x]) => svg("text", { class: "title", x, y: 22, "text-anchor": "middle" }, name === "Kafka" ? name : t(`title-${name}`)));
  children.push(
    box(10, 130, 120, 110, sensors, [[t("sensors-about"), "soft"], sensors.trouble?.short ? [sensors.trouble.short, "bad"] : [rate(rates.readings), "rate"]]),
    kafka(185, 140, 140, 90, "sensor-data-…", t("records", { n: number(readings) })),
    arrow([[130, 185], [183, 185]], rates.readings),
    arrow([[325, 185], [368, 185]], speed(fog[0]?.name) || (fog.length ? rates.readings : 0)));
  drawn.forEach((node, i) => {
    const now = node.trouble?.short ? [node.trouble.short, "bad"] : [small ? node.weight : node.count, "soft"];
    const lines = small ? [now, lagText(node)] : [[node.weight, "soft"], now, lagText(node)];
    children.push(box(370, top + i * (height + 12), 225, height, node, node.about ? lines : [[t("not-started"), "soft"]]));
  });
  if (fog.length > MOST_NODES) children.push(svg("text", { class: "soft", x: 470, y: 345, "text-anchor": "middle" }, t("more-nodes", { n: fog.length - MOST_NODES })));
  children.push(
    kafka(645, 60, 130, 80, "model-weights", t("records", { n: number(total["model-weights"] ?? 0) })),
    kafka(645, 235, 130, 80, "global-model", t("records", { n: number(total["global-model"] ?? 0) })),
    arrow([[595, 100], [643, 100]], rates["model-weights"]),
    svg("text", { class: "rate", x: 710, y: 52, "text-anchor": "middle" }, rate(rates["model-weights"])),
    arrow([[775, 100], [818, 140]], rates["model-weights"]),
    box(820, 105, 172, 165, cloud, [[cloud.about, "soft"], [cloud.more, "soft"], [t("f1-about", { f: number(snapshot.run?.scores.f1, 3) }), ""], [t("best-about", { f: number(snapshot.run?.best?.f1, 3), v: number(snapshot.run?.best?.version) }), "soft"], cloud.trouble?.short ? [cloud.trouble.short, "bad"] : lagText(cloud)]),
    arrow([[818, 235], [777, 265]], rates["global-model"]),
    arrow([[643, 275], [597, 275]], rates["global-model"]),
    svg("text", { class: "rate", x: 710, y: 333, "text-anchor": "middle" }, rate(rates["global-model"])),
    arrow([[255, 230], [255, 362]], rates.alerts),
    arrow([[710, 340], [710, 390], [432, 390]], rates.alerts ? rates["global-model"] : 0),
    box(185, 364, 245, 60, alerts, [[alerts.trouble ? alerts.trouble.short ?? t("not-started") : t("alerts-about", { r: rate(rates.alerts), d: duration(snapshot.alerts?.delay_seconds.p95) }), alerts.trouble?.level === "bad" ? "bad" : "soft"]]));
  return children;
}

/** The same as a table. */
export function partsTable(snapshot) {
  const { fog, cloud, lag, behind, speed } = parts(snapshot);
  const others = snapshot.jobs.map((job) => job.name).filter((name) => !["cloud", "sensors"].includes(name) && !name.startsWith("fog-"))
    .map((name) => ({ name, about: "", more: "", trouble: troubleOf(snapshot, name), rate: speed(name), lag: lag(name), seconds: behind(name) }));
  const sensors = { name: t("sensors"), about: "", more: "", trouble: sensorsTrouble(snapshot), rate: snapshot.rates.readings, lag: 0, seconds: 0 };
  const services = snapshot.services.map((each) => ({ name: each.name, about: "", more: "", trouble: each.trouble && { level: "bad", text: each.trouble, remedy: "make doctor" } }));
  return table([
    [t("part"), (part) => part.name],
    [t("state"), (part) => part.trouble
      ? el("div", {}, state(level(part), [part.trouble.text, part.trouble.said].filter(Boolean).join(" ")), " ", el("code", {}, part.trouble.remedy))
      : state("good", [t("well"), part.about, part.more].filter(Boolean).join(", "))],
    [t("rate"), (part) => (part.rate === undefined ? "" : rate(part.rate)), "number"],
    [t("lag"), (part) => (part.lag === undefined ? "" : t("lag-cell", { n: number(part.lag), s: duration(part.seconds) })), "number"],
  ], [...services, sensors, ...fog, cloud, ...others]);
}
