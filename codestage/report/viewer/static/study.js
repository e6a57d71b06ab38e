// One study: how far it is, what it found overall, and every effect as a table.

import { ask } from "./api.js";
import { data, fill, h, hidden, mark, problem, say, segmented, select, wide } from "./dom.js";
import * as format from "./format.js";
import { address, go } from "./state.js";

const VERDICTS = { up: ["▲", "raised"], down: ["▼", "lowered"], equivalent: ["≈", "practically none"], not_worse: ["≥", "not worse"], open: ["?", "not resolved"] };
const STATES = { running: "▶", done: "✓", stopped: "■", failed: "✗" };
const MAIN = ["interaction", "simple", "schedule", "control", "budget", "transfer", "cot"];
const FAMILIES = {
  interaction: "Interaction of stages", simple: "One option at a time", schedule: "Orders of the same data",
  control: "Controls", budget: "Shorter budgets", transfer: "Tasks outside code", cot: "Reasoning before the answer",
};
const FIRST_ROWS = 60;
let sorting = { key: null, down: false };
let everything = false;

export async function renderStudy(main, state, { study, answer, fresh, still }) {
  if (fresh) {
    fill(main,
      heading(study, answer),
      h("section", { id: "progress", "aria-labelledby": "progress-title" }),
      h("div", { id: "findings" }));
    renderProgress(answer, null);
    [sorting, everything] = [{ key: null, down: false }, false];
  }
  const findings = document.getElementById("findings");
  if (study.error) return fill(findings, problem(new Error(study.error)));
  if (!study.ready) {
    fill(findings, h("section", { class: "card" }, h("h2", {}, "Results"),
      h("p", {}, "There are none yet. They appear here by themselves when the study has finished.")));
    return;
  }
  if (!study.effects) {
    fill(findings, h("section", { class: "card" }, h("h2", {}, "Results"),
      h("p", {}, "The records are there; the effects are not worked out yet. They appear here by themselves. ",
        h("a", { href: address({ view: "compare", study: study.id }) }, "Items can be compared"), " already.")));
    return;
  }
  const asked = { study: study.id, stage: state.stage, cot: state.cot, metric: state.metric };
  const told = { ...(await ask("effects", asked)), study: study.id };
  if (!still()) return;
  fill(findings, answers(told), table(told, state));
}

function heading(study, answer) {
  const name = study.ready ? study.name : answer?.status?.study ?? study.name;
  const facts = study.ready
    ? `${format.count(study.arms.length)} arms · ${study.seeds.length} seeds · ${study.tasks.length} tasks · stages: ${study.stages.join(", ")}`
    : null;
  return h("div", { class: "title" },
    h("div", {}, h("h1", {}, data(name)), h("p", { class: "soft" }, data(study.folder), facts ? [h("br"), data(facts)] : null)),
    study.report ? h("a", { class: "button", href: `/report?study=${study.id}`, target: "_blank", rel: "noopener" }, "Report ", hidden("(opens in a new tab)"), mark("↗", "out")) : null);
}

export function renderProgress(answer, before) {
  const place = document.getElementById("progress");
  if (!place) return;
  const { status, note } = answer ?? { status: null, note: "no answer yet" };
  if (!status) {
    place.className = "card";
    fill(place, h("h2", { id: "progress-title" }, "Progress"), h("p", {}, "Nothing is known of its run: ", data(note)));
    return;
  }
  if (place.childElementCount && before && JSON.stringify(before) === JSON.stringify(answer)) return;
  const folded = place.querySelector("details.warnings")?.open === false;
  const { done, running, waiting } = status.steps;
  const total = done + running + waiting;
  const share = status.tokens_total ? status.tokens_done / status.tokens_total : 0;
  place.className = `card progress ${status.state}`;
  fill(place, 
    h("h2", { id: "progress-title" }, "Progress ", h("span", { class: "badge" }, mark(STATES[status.state] ?? "·", "state"), data(status.state))),
    h("dl", { class: "figures" },
      figure("Steps done", `${format.count(done)} of ${format.count(total)}`, `${format.count(running)} running, ${format.count(waiting)} waiting`),
      figure("Tokens trained", `${format.tokens(status.tokens_done)}`, `of ${format.tokens(status.tokens_total)} (${format.percent(share, 0)} %)`),
      status.state === "running" ? figure("Speed", `${format.tokens(status.tokens_per_second)}`, "tokens a second") : null,
      status.state === "running" ? figure("Time left", status.seconds_left === null ? "not known yet" : `about ${format.duration(status.seconds_left)}`, "") : null,
      figure("Worked", format.duration(status.seconds), "so far, all calls together")),
    h("progress", { max: Math.max(1, total), value: done, "aria-label": "Steps done" }),
    status.running.length ? nowRunning(status.running) : null,
    status.warnings.length ? h("details", { class: "warnings", open: !folded }, h("summary", { id: "warnings" }, `Warnings (${status.warnings.length})`),
      h("ul", {}, status.warnings.map((warning) => h("li", {}, data(warning))))) : null);
  announce(status, before?.status, total);
}

const figure = (name, value, under) =>
  h("div", {}, h("dt", {}, name), h("dd", {}, h("span", { class: "big" }, value), h("span", { class: "soft" }, under)));

// Said to screen readers when the state changes and at each tenth of the steps, not every two seconds.
function announce(status, before, total) {
  const tenth = (s) => Math.floor((10 * s.steps.done) / Math.max(1, total));
  if (before && (before.state !== status.state || tenth(before) !== tenth(status))) {
    say(`${status.state}: ${status.steps.done} of ${total} steps done.`);
  }
}

function nowRunning(rows) {
  const line = (row) => h("tr", {},
    h("th", { scope: "row" }, data(row.step)), h("td", {}, data(row.kind)),
    h("td", { class: "number" }, row.tokens === undefined ? format.DASH : format.tokens(row.tokens)),
    h("td", { class: "number" }, format.fixed(row.loss, 3)),
    h("td", { class: "number" }, row.tokens_per_second === undefined ? format.DASH : format.tokens(Math.round(row.tokens_per_second))));
  return wide("What is running", h("table", { class: "running-now" },
    h("caption", { class: "hidden" }, "What is running"),
    h("thead", {}, h("tr", {}, ["Step", "Kind", "Tokens", "Loss", "Tokens a second"].map((head, i) =>
      h("th", { scope: "col", class: i > 1 ? "number" : null }, head)))),
    h("tbody", {}, rows.map(line))));
}

function answers(told) {
  const pick = (changes) => go(changes, { replace: true });
  const at = { stage: told.stage, cot: told.cot, metric: told.metric };
  const among = (key) => [...new Set(told.places
    .filter((p) => key === "stage" || (p.stage === at.stage && (key === "cot" || p.cot === at.cot))).map((p) => p[key]))];
  const overall = told.rows.filter((row) => row.level === "overall");
  const families = [...new Set(overall.map((row) => row.family))].sort((a, b) => MAIN.indexOf(a) - MAIN.indexOf(b));
  const unit = overall.find((row) => row.unit)?.unit ?? "points";
  return h("section", { class: "card", "aria-labelledby": "answer-title" },
    h("h2", { id: "answer-title" }, "What it found, over all tasks"),
    h("div", { class: "fields" },
      select("After stage", among("stage").map(same), at.stage, (stage) => pick({ stage, cot: null, metric: null }), { id: "pick-stage" }),
      select("Mode", among("cot").map((cot) => ({ value: cot, label: format.modeName(cot) })), at.cot, (cot) => pick({ ...at, cot, metric: null }), { id: "pick-cot" }),
      select("Score", among("metric").map((m) => ({ value: m, label: format.metricName(m) })), at.metric, (metric) => pick({ ...at, metric }), { id: "pick-metric" })),
    overall.length ? forest(overall, families, told, unit) : h("p", {}, "There is no effect over all tasks here."),
    told.notes.length ? h("ul", { class: "notes" }, told.notes.map((note) => h("li", {}, data(note)))) : null);
}

const same = (value) => ({ value, label: value });

// Effects with their intervals on one scale. The drawing repeats the numbers beside it.
function forest(rows, families, told, unit) {
  const scale = scaleOf(rows);
  const margin = told.margin ?? 0;
  const level = `${Math.round(100 * (1 - told.alpha))} %`;
  const line = (row) => h("tr", {},
    h("th", { scope: "row" }, data(row.label)),
    h("td", { class: "drawing", "aria-hidden": "true" }, interval(row, scale, margin)),
    h("td", { class: "number" }, h("strong", {}, format.signed(row.estimate, format.decimals(unit))), " ", h("span", { class: "soft nowrap" }, between(row, unit))),
    h("td", {}, verdict(row)),
    h("td", {}, itemsLink(row, told)));
  return wide("Effects over all tasks", h("table", { class: "forest" },
    h("caption", {}, `Differences in ${format.UNITS[unit] ?? unit} with ${level} intervals over items and seeds; positive: the side named first scores better.`,
      margin ? ` Shaded: differences up to ${margin} count as practically none.` : ""),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Effect"), h("td", { class: "drawing", "aria-hidden": "true" }, axis(scale)),
      h("th", { scope: "col", class: "number" }, `Estimate (${level})`), h("th", { scope: "col" }, "Verdict"), h("th", { scope: "col" }, "Drill down"))),
    families.map((family) => h("tbody", {},
      FAMILIES[family] ? h("tr", { class: "family" }, h("th", { scope: "rowgroup", colspan: "5" }, FAMILIES[family])) : null,
      rows.filter((row) => row.family === family).map(line)))));
}

function scaleOf(rows) {
  const ends = rows.flatMap((row) => [row.low, row.high]).filter((v) => v !== null);
  const low = Math.min(0, ...ends), high = Math.max(0, ...ends);
  const span = high - low || 1;
  const rough = span / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const from = Math.floor(low / step) * step, to = Math.ceil(high / step) * step || step;
  const ticks = Array.from({ length: Math.round((to - from) / step) + 1 }, (_, i) => from + i * step);
  return { at: (v) => (100 * (v - from)) / (to - from), ticks, places: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

function placed(kind, left, width) {
  const element = h("span", { class: kind });
  element.style.left = `${left}%`;
  if (width !== undefined) element.style.width = `${width}%`;
  return element;
}

function interval(row, scale, margin) {
  const at = (v) => Math.min(100, Math.max(0, scale.at(v)));
  return h("div", { class: `track ${row.verdict}` },
    margin ? placed("band", at(-margin), at(margin) - at(-margin)) : null,
    placed("zero", at(0)),
    row.low === null || row.high === null ? null : placed("whisker", at(row.low), at(row.high) - at(row.low)),
    row.estimate === null ? null : placed("dot", at(row.estimate)));
}

function axis(scale) {
  return h("div", { class: "track axis" }, scale.ticks.map((v) => {
    const tick = placed("tick", scale.at(v));
    tick.append(format.signed(v, scale.places));
    return tick;
  }));
}

const between = (row, unit) => row.low === null || row.high === null ? "(no interval)"
  : `(${format.signed(row.low, format.decimals(unit))} to ${format.signed(row.high, format.decimals(unit))})`;

function verdict(row) {
  const [sign, word] = VERDICTS[row.verdict] ?? ["·", row.verdict ?? "not measured"];
  return h("span", { class: `verdict ${row.verdict}` }, mark(sign, "sign"), data(word));
}

function itemsLink(row, told) {
  if (!row.pair) return h("span", { class: "soft" }, format.DASH, hidden("no single pair of arms"));
  const [armA, armB] = row.pair;
  const to = { view: "compare", study: told.study, arm_a: armA, arm_b: armB, stage_a: row.stage, stage_b: row.stage, cot: row.cot, metric: row.metric,
    task: row.level === "task" ? row.name : null };
  return h("a", { class: "nowrap", id: `items-${row.contrast}-${row.level}-${row.name}`, href: address(to) }, "Items", hidden(` of ${row.label}, ${row.name}: ${armB} against ${armA}`));
}

const COLUMNS = [
  ["label", "Effect"], ["name", "On"], ["estimate", "Estimate"], ["low", "Interval"], ["p_adjusted", "Adjusted p"], ["verdict", "Verdict"], ["n_items", "Items"],
];

function table(told, state) {
  const section = h("section", { class: "card", "aria-labelledby": "effects-title" });
  const body = h("div", {});
  const contrasts = [...new Map(told.rows.map((row) => [row.contrast, row.label]))];
  const draw = () => fill(body, effectRows(told, state, draw));
  const keep = (changes) => { go(changes, { replace: true }); };
  section.append(
    h("h2", { id: "effects-title" }, "By domain and task"),
    h("div", { class: "fields" },
      segmented("Level", "level", [["all", "all"], ["domain", "domains"], ["task", "tasks"]].map(([value, label]) => ({ value, label })), state.level ?? "all",
        (level) => keep({ level: level === "all" ? null : level })),
      select("Effect", [{ value: "", label: "every effect" }, ...contrasts.map(([value, label]) => ({ value, label }))], state.contrast ?? "",
        (contrast) => keep({ contrast }), { id: "pick-contrast" }),
      h("div", { class: "field" }, h("label", { for: "find" }, "Domain or task contains"),
        h("input", { id: "find", type: "search", value: state.find ?? "", autocomplete: "off",
          oninput: (event) => { state.find = event.target.value; draw(); }, onchange: (event) => keep({ find: event.target.value }) }))),
    body);
  draw();
  return section;
}

function effectRows(told, state, draw) {
  const find = (state.find ?? "").toLowerCase();
  const rows = told.rows.filter((row) => row.level !== "overall"
    && (!state.level || row.level === state.level) && (!state.contrast || row.contrast === state.contrast)
    && row.name.toLowerCase().includes(find));
  if (sorting.key) rows.sort(by(sorting));
  const some = everything ? rows : rows.slice(0, FIRST_ROWS);
  const sort = (key) => { sorting = { key, down: sorting.key === key && !sorting.down }; draw(); };
  const head = ([key, label], i) => {
    const on = sorting.key === key;
    return h("th", { scope: "col", class: i > 1 && key !== "verdict" ? "number" : null, "aria-sort": on ? (sorting.down ? "descending" : "ascending") : "none" },
      h("button", { type: "button", class: "sort", id: `sort-${key}`, onclick: () => sort(key) }, label, mark(on ? (sorting.down ? "▼" : "▲") : "↕", "arrow")));
  };
  const line = (row) => h("tr", {},
    h("th", { scope: "row" }, data(row.label)),
    h("td", {}, data(row.name), " ", h("span", { class: "soft" }, row.level)),
    h("td", { class: "number" }, format.signed(row.estimate, format.decimals(row.unit))),
    h("td", { class: "number nowrap" }, between(row, row.unit)),
    h("td", { class: "number nowrap" }, format.probability(row.p_adjusted)),
    h("td", {}, verdict(row)),
    h("td", { class: "number" }, format.count(row.n_items)),
    h("td", {}, itemsLink(row, told)));
  return [
    h("p", { class: "soft", role: "status" }, `${format.count(rows.length)} effects`, some.length < rows.length ? `, the first ${some.length} shown` : ""),
    wide("Effects by domain and task", h("table", { class: "effects" },
      h("caption", { class: "hidden" }, "Effects by domain and task; the heads sort"),
      h("thead", {}, h("tr", {}, COLUMNS.map(head), h("th", { scope: "col" }, "Drill down"))),
      h("tbody", {}, some.map(line)))),
    some.length < rows.length ? h("button", { type: "button", class: "button", onclick: () => { everything = true; draw(); } }, `Show all ${format.count(rows.length)}`) : null,
  ];
}

function by({ key, down }) {
  const turn = down ? -1 : 1;
  return (a, b) => {
    const [x, y] = [a[key], b[key]];
    if (x === null || y === null) return (x === null) - (y === null);  // unknown last, either way
    return turn * (typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y);
  };
}
