// The parts of an effect that stand in the drawing and in the table.

import { data, h, hidden, mark } from "./dom.js";
import * as format from "./format.js";
import { address } from "./state.js";

const VERDICTS = {
  up: ["▲", "raised"],
  down: ["▼", "lowered"],
  equivalent: ["≈", "practically none"],
  not_worse: ["≥", "not worse"],
  open: ["?", "not resolved"],
};
export const between = (row, unit) =>
  row.low === null || row.high === null
    ? "(no interval)"
    : `(${format.signed(row.low, format.decimals(unit))} to ${format.signed(row.high, format.decimals(unit))})`;

export function verdict(row) {
  const [sign, word] = VERDICTS[row.verdict] ?? ["·", row.verdict ?? "not measured"];
  return h("span", { class: `verdict ${row.verdict}` }, mark(sign, "sign"), data(word));
}

export function itemsLink(row, told) {
  if (!row.pair) return h("span", { class: "soft" }, format.DASH, hidden("no single pair of arms"));
  const [armA, armB] = row.pair;
  const to = {
    view: "compare",
    study: told.study,
    arm_a: armA,
    arm_b: armB,
    stage_a: row.stage,
    stage_b: row.stage,
    cot: row.cot,
    metric: row.metric,
    task: row.level === "task" ? row.name : null,
  };
  return h(
    "a",
    { class: "nowrap", id: `items-${row.contrast}-${row.level}-${row.name}`, href: address(to) },
    "Items",
    hidden(` of ${row.label}, ${row.name}: ${armB} against ${armA}`),
  );
}
