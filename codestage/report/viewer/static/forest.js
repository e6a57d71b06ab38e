// What a study found over all tasks, drawn on one scale.

import { data, h, select, wide } from "./dom.js";
import { between, itemsLink, verdict } from "./effect.js";
import * as format from "./format.js";
import { go } from "./state.js";

const MAIN = ["interaction", "simple", "schedule", "control", "budget", "transfer", "cot"];
const FAMILIES = {
  interaction: "Interaction of stages",
  simple: "One option at a time",
  schedule: "Orders of the same data",
  control: "Controls",
  budget: "Shorter budgets",
  transfer: "Tasks outside code",
  cot: "Reasoning before the answer",
};
export function renderAnswers(told) {
  const pick = (changes) => go(changes, { replace: true });
  const at = { stage: told.stage, cot: told.cot, metric: told.metric };
  const among = (key) => [
    ...new Set(
      told.places
        .filter((p) => key === "stage" || (p.stage === at.stage && (key === "cot" || p.cot === at.cot)))
        .map((p) => p[key]),
    ),
  ];
  const overall = told.rows.filter((row) => row.level === "overall");
  const families = [...new Set(overall.map((row) => row.family))].sort(
    (a, b) => MAIN.indexOf(a) - MAIN.indexOf(b),
  );
  const unit = overall.find((row) => row.unit)?.unit ?? "points";
  return h(
    "section",
    { class: "card", "aria-labelledby": "answer-title" },
    h("h2", { id: "answer-title" }, "What it found, over all tasks"),
    h(
      "div",
      { class: "fields" },
      select(
        "After stage",
        among("stage").map(same),
        at.stage,
        (stage) => pick({ stage, cot: null, metric: null }),
        { id: "pick-stage" },
      ),
      select(
        "Mode",
        among("cot").map((cot) => ({ value: cot, label: format.modeName(cot) })),
        at.cot,
        (cot) => pick({ ...at, cot, metric: null }),
        { id: "pick-cot" },
      ),
      select(
        "Score",
        among("metric").map((m) => ({ value: m, label: format.metricName(m) })),
        at.metric,
        (metric) => pick({ ...at, metric }),
        { id: "pick-metric" },
      ),
    ),
    overall.length
      ? forest(overall, families, told, unit)
      : h("p", {}, "There is no effect over all tasks here."),
    told.notes.length
      ? h(
          "ul",
          { class: "notes" },
          told.notes.map((note) => h("li", {}, data(note))),
        )
      : null,
  );
}

const same = (value) => ({ value, label: value });

// Effects with their intervals on one scale. The drawing repeats the numbers beside it.
function forest(rows, families, told, unit) {
  const scale = scaleOf(rows);
  const margin = told.margin ?? 0;
  const level = `${Math.round(100 * (1 - told.alpha))} %`;
  const line = (row) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, data(row.label)),
      h("td", { class: "drawing", "aria-hidden": "true" }, interval(row, scale, margin)),
      h(
        "td",
        { class: "number" },
        h("strong", {}, format.signed(row.estimate, format.decimals(unit))),
        " ",
        h("span", { class: "soft nowrap" }, between(row, unit)),
      ),
      h("td", {}, verdict(row)),
      h("td", {}, itemsLink(row, told)),
    );
  return wide(
    "Effects over all tasks",
    h(
      "table",
      { class: "forest" },
      h(
        "caption",
        {},
        `Differences in ${format.UNITS[unit] ?? unit} with ${level} intervals over items and seeds; positive: the side named first scores better.`,
        margin ? ` Shaded: differences up to ${margin} count as practically none.` : "",
      ),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("th", { scope: "col" }, "Effect"),
          h("td", { class: "drawing", "aria-hidden": "true" }, axis(scale)),
          h("th", { scope: "col", class: "number" }, `Estimate (${level})`),
          h("th", { scope: "col" }, "Verdict"),
          h("th", { scope: "col" }, "Drill down"),
        ),
      ),
      families.map((family) =>
        h(
          "tbody",
          {},
          FAMILIES[family]
            ? h("tr", { class: "family" }, h("th", { scope: "rowgroup", colspan: "5" }, FAMILIES[family]))
            : null,
          rows.filter((row) => row.family === family).map(line),
        ),
      ),
    ),
  );
}

function scaleOf(rows) {
  const ends = rows.flatMap((row) => [row.low, row.high]).filter((v) => v !== null);
  const low = Math.min(0, ...ends),
    high = Math.max(0, ...ends);
  const span = high - low || 1;
  const rough = span / 4,
    power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const from = Math.floor(low / step) * step,
    to = Math.ceil(high / step) * step || step;
  const ticks = Array.from({ length: Math.round((to - from) / step) + 1 }, (_, i) => from + i * step);
  return {
    at: (v) => (100 * (v - from)) / (to - from),
    ticks,
    places: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)),
  };
}

function placed(kind, left, width) {
  const element = h("span", { class: kind });
  element.style.left = `${left}%`;
  if (width !== undefined) element.style.width = `${width}%`;
  return element;
}

function interval(row, scale, margin) {
  const at = (v) => Math.min(100, Math.max(0, scale.at(v)));
  return h(
    "div",
    { class: `track ${row.verdict}` },
    margin ? placed("band", at(-margin), at(margin) - at(-margin)) : null,
    placed("zero", at(0)),
    row.low === null || row.high === null ? null : placed("whisker", at(row.low), at(row.high) - at(row.low)),
    row.estimate === null ? null : placed("dot", at(row.estimate)),
  );
}

function axis(scale) {
  return h(
    "div",
    { class: "track axis" },
    scale.ticks.map((v) => {
      const tick = placed("tick", scale.at(v));
      tick.append(format.signed(v, scale.places));
      return tick;
    }),
  );
}
