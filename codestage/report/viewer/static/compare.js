// Two arms item by item: choosing them, what flipped on each task, and the items to look at.

import { ask } from "./api.js";
import { data, fill, h, hidden, mark, problem, segmented, select, wide } from "./dom.js";
import * as format from "./format.js";
import { renderItem } from "./item.js";
import { address, go } from "./state.js";

const PAGE = 50;
const WORDS = {
  flips: { gained: "gained", lost: "lost", changed: "flipped", same: "same", all: "all" },
  graded: { gained: "better", lost: "worse", changed: "changed", same: "same", all: "all" },
};
let drawn = null;

// What is asked, with what was not said filled in: code against none, after the last stage both have.
function settle(state, studies) {
  const ready = studies.filter((s) => s.ready);
  if (!ready.length) return null;
  const a = studies[state.study].ready ? studies[state.study] : ready[0];
  const b = studies[Number(state.b)]?.ready && state.b ? studies[Number(state.b)] : a;
  const arm = (study, wanted, fallback) => study.arms.find((x) => x.name === wanted) ?? fallback(study.arms, study);
  const armA = arm(a, state.arm_a, (arms) => arms.find((x) => !x.code.length) ?? arms[0]);
  const armB = arm(b, state.arm_b, (arms, study) => a === b
    ? arms.find((x) => x.code.join() === study.stages[0]) ?? arms.find((x) => x.code.length === 1) ?? arms.find((x) => x !== armA) ?? armA
    : arms.find((x) => x.name === armA.name) ?? arms[0]);
  const scored = (study) => [...new Set(study.places.map((p) => p.stage))];
  const stage = (study, wanted) => scored(study).find((s) => s === wanted) ?? study.stages.filter((s) => scored(study).includes(s)).at(-1);
  const [stageA, stageB] = [stage(a, state.stage_a), stage(b, state.stage_b ?? state.stage_a)];
  const places = (study, at) => study.places.filter((p) => p.stage === at);
  const common = places(a, stageA).filter((p) => places(b, stageB).some((q) => q.cot === p.cot && q.metric === p.metric));
  const cots = [...new Set(common.map((p) => p.cot))];
  const cot = cots.includes(state.cot) ? state.cot : cots[0];
  const metrics = common.filter((p) => p.cot === cot).map((p) => p.metric);
  const metric = metrics.includes(state.metric) ? state.metric : metrics[0];
  const seeds = a.seeds.filter((seed) => b.seeds.includes(seed));
  const seed = seeds.map(String).includes(state.seed) ? state.seed : "all";
  return {
    a, b, cots, metrics, seeds, stagesA: scored(a), stagesB: scored(b),
    query: { a: a.id, b: b.id, arm_a: armA.name, arm_b: armB.name, stage_a: stageA, stage_b: stageB, cot, metric, seed },
  };
}

export async function renderCompare(main, state, { studies, nameOf, fresh, still }) {
  const chosen = settle(state, studies);
  const inside = document.getElementById("detail")?.contains(document.activeElement);
  if (!chosen) {
    fill(main, h("h1", {}, "Compare"), h("p", { class: "card" }, "No study here has results yet; there is nothing to compare before a run has finished."));
    drawn = null;
    return;
  }
  if (fresh || !document.getElementById("choice")) {
    fill(main, h("h1", {}, "Which items flipped?"), h("div", { id: "choice" }), h("div", { id: "told" }));
    drawn = null;
  }
  fill(document.getElementById("choice"), form(chosen, studies, nameOf));
  const key = JSON.stringify(chosen.query);
  const told = document.getElementById("told");
  try {
    if (drawn?.key !== key) {
      told.classList.add("waiting");
      drawn = { key, answer: await ask("compare", chosen.query) };
      if (!still()) return;
      fill(told, h("div", { id: "summary" }), h("section", { class: "card", id: "items", "aria-labelledby": "items-title" }));
    }
    fill(document.getElementById("summary"), summary(drawn.answer, chosen, state, nameOf));
    await items(chosen, state, still, inside);
  } catch (error) {
    drawn = null;
    if (still()) fill(told, problem(error));
  } finally {
    told.classList.remove("waiting");
  }
}

function form(chosen, studies, nameOf) {
  const { a, b, query } = chosen;
  const ready = studies.filter((s) => s.ready).map((s) => ({ value: String(s.id), label: nameOf(s) }));
  // What was chosen stays where it still makes sense; the rest falls back.
  const pick = (changes) => go({ ...query, study: query.a, a: null, page: null, task: null, item: null, of: null, ...changes });
  const keepTask = (changes) => go({ ...query, study: query.a, a: null, page: null, ...changes });
  const side = (letter, study, arm, stage, stages) => h("fieldset", { class: `side ${letter}` },
    h("legend", {}, badge(letter), letter === "a" ? " Baseline" : " Compared with it"),
    ready.length > 1 ? select("Study", ready, String(study.id), (id) => pick(letter === "a" ? { study: id } : { b: id }), { id: `study-${letter}` }) : null,
    select("Arm", study.arms.map((x) => ({ value: x.name, label: x.role === "grid" ? x.name : `${x.name} (${x.role})` })), arm, (name) => keepTask({ [`arm_${letter}`]: name }), { id: `arm-${letter}` }),
    select("After stage", stages.map(same), stage, (name) => keepTask({ [`stage_${letter}`]: name }), { id: `stage-${letter}` }));
  return h("section", { class: "card", "aria-label": "What is compared" },
    h("div", { class: "sides" },
      side("a", a, query.arm_a, query.stage_a, chosen.stagesA),
      h("button", { type: "button", class: "button swap", id: "swap", onclick: () => keepTask({ study: query.b, b: query.a, arm_a: query.arm_b, arm_b: query.arm_a, stage_a: query.stage_b, stage_b: query.stage_a }) }, mark("⇄", "swap"), hidden("Swap A and B")),
      side("b", b, query.arm_b, query.stage_b, chosen.stagesB)),
    h("div", { class: "fields" },
      select("Mode", chosen.cots.map((cot) => ({ value: cot, label: format.modeName(cot) })), query.cot, (cot) => keepTask({ cot }), { id: "cmp-cot" }),
      select("Score", chosen.metrics.map((m) => ({ value: m, label: format.metricName(m) })), query.metric, (metric) => keepTask({ metric }), { id: "cmp-metric" }),
      select("Seeds", [{ value: "all", label: chosen.seeds.length === 1 ? `the one in common (${chosen.seeds[0]})` : `all ${chosen.seeds.length}` }, ...chosen.seeds.map((s) => ({ value: String(s), label: `seed ${s}` }))], query.seed, (seed) => keepTask({ seed }), { id: "cmp-seed" })));
}

const same = (value) => ({ value, label: value });
export const badge = (letter) => h("span", { class: `side-badge ${letter}` }, letter.toUpperCase());

function summary(answer, { a, b, query }, state, nameOf) {
  const words = WORDS[answer.kind];
  const told = tells(answer, query.metric);
  const { total } = answer;
  const seeds = answer.seeds.length === 1 ? `seed ${answer.seeds[0]}` : `${answer.seeds.length} seeds`;
  const left = [
    answer.only_a ? `${format.count(answer.only_a)} are only in A` : null, answer.only_b ? `${format.count(answer.only_b)} only in B` : null,
    answer.gold_differs ? `${format.count(answer.gold_differs)} are left out: their right answers differ` : null,
    total.unknown ? `${format.count(total.unknown)} pairs have an unknown score and are not counted` : null,
  ].filter(Boolean);
  const tile = (name, value, under, kind) => h("div", { class: kind }, h("dt", {}, name), h("dd", {}, h("span", { class: "big" }, value), h("span", { class: "soft" }, under)));
  const of = (n) => (total.pairs ? `${format.percent(n / total.pairs)} % of ${format.count(total.pairs)} pairs` : "no pairs");
  return [h("section", { class: "card", "aria-labelledby": "sum-title" },
    h("h2", { id: "sum-title" }, badge("b"), " ", data(query.arm_b), a === b ? null : [" of ", data(nameOf(b))], " against ", badge("a"), " ", data(query.arm_a), a === b ? null : [" of ", data(nameOf(a))]),
    h("p", { class: "soft" }, `${format.count(answer.matched)} items match, ${seeds}. `, left.length ? left.join("; ") + "." : null),
    h("dl", { class: "figures" },
      tile(format.metricName(query.metric), [shown(total.mean_a, query.metric), mark(" → ", "to"), hidden(" to "), shown(total.mean_b, query.metric)], ["A to B, ", difference(total, query.metric), answer.lower_is_better ? " (lower is better)" : null]),
      tile([mark("▲", "gained"), words.gained], format.count(total.gained), [told.gained, h("br"), of(total.gained)], "gained"),
      tile([mark("▼", "lost"), words.lost], format.count(total.lost), [told.lost, h("br"), of(total.lost)], "lost"),
      tile([mark("=", "same"), "the same"], format.count(total.same), of(total.same)),
      total.p === null ? null : tile("McNemar's exact p", format.probability(total.p), "that gains and losses are as likely")),
    tasks(answer, query, state, words),
    h("p", { class: "soft small" }, answer.kind === "flips"
      ? answer.seeds.length === 1 ? "p: McNemar's exact test on this seed, not corrected for the number of tasks." : "Counts are pooled over seeds; seeds answer the same items, so there is no p here. Choose one seed for McNemar's exact test."
      : "Scores that are not right or wrong have no flips: better and worse count every difference, however small.",
      " What the study bears out, with seeds and all tasks taken into account, is on its own page."))];
}

function tells(answer, metric) {
  const [good, bad] = format.outcome(metric);
  return answer.kind === "flips" ? { gained: `${bad} in A, ${good} in B`, lost: `${good} in A, ${bad} in B` } : { gained: "better in B", lost: "worse in B" };
}

const shown = (mean, metric) => (metric === "bpb" ? format.fixed(mean, 3) : format.percent(mean));
function difference(row, metric) {
  if (row.mean_a === null || row.mean_b === null) return format.DASH;
  const gap = row.mean_b - row.mean_a;
  return metric === "bpb" ? `${format.signed(gap, 3)} bits` : `${format.signed(100 * gap)} points`;
}

function tasks(answer, query, state, words) {
  const largest = Math.max(0.001, ...answer.tasks.map((row) => Math.max(row.gained, row.lost) / Math.max(1, row.pairs)));
  const bar = (row) => {
    const part = (kind, n) => { const x = h("span", { class: `bar ${kind}` }); x.style.width = `${Math.min(50, (50 * n) / Math.max(1, row.pairs) / largest)}%`; return x; };
    return h("div", { class: "both" }, part("lost", row.lost), part("gained", row.gained));
  };
  const pick = (task) => address({ ...state, task, page: null, item: null, of: null });
  const single = answer.kind === "flips" && answer.seeds.length === 1;
  const line = (row) => h("tr", { class: state.task === row.task ? "chosen" : null },
    h("th", { scope: "row" }, h("a", { id: `task-${row.task}`, href: pick(state.task === row.task ? null : row.task), "aria-current": state.task === row.task ? "true" : null }, data(row.task)),
      " ", row.domain ? data(row.domain, { class: "data soft domain" }) : null),
    h("td", { class: "number wide" }, format.count(row.items)),
    h("td", { class: "number wide" }, shown(row.mean_a, query.metric)),
    h("td", { class: "number wide" }, shown(row.mean_b, query.metric)),
    h("td", { class: "number wide nowrap" }, difference(row, query.metric).replace(/ .*/, "")),
    h("td", { class: "number lost" }, mark("▼", "lost only"), format.count(row.lost)),
    h("td", { class: "drawing", "aria-hidden": "true" }, bar(row)),
    h("td", { class: "number left" }, mark("▲", "gained only"), format.count(row.gained)),
    single ? h("td", { class: "number wide nowrap" }, format.probability(row.p)) : null,
    h("td", { class: "facts" }, `${format.count(row.items)} items, ${shown(row.mean_a, query.metric)} → ${shown(row.mean_b, query.metric)} (${difference(row, query.metric)})`,
      single ? `, p ${format.probability(row.p)}` : ""));
  const head = (label, kind = "number") => h("th", { scope: "col", class: kind }, label);
  return wide("Tasks", h("table", { class: "tasks" },
    h("caption", {}, "By task; a name filters the items below"),
    h("thead", {}, h("tr", {}, head("Task", null), head("Items"), head([badge("a"), hidden(" score")]), head([badge("b"), hidden(" score")]), head("Difference"),
      head([mark("▼", "lost"), words.lost]), h("td", { "aria-hidden": "true" }), head([mark("▲", "gained"), words.gained], "left"), single ? head("p") : null)),
    h("tbody", {}, answer.tasks.map(line))));
}

async function items(chosen, state, still, inside) {
  const { query } = chosen;
  const words = WORDS[drawn.answer.kind];
  const direction = WORDS.flips[state.dir] ? state.dir : "changed";
  const number = Math.max(1, Number.parseInt(state.page ?? "1", 10) || 1);
  const wanted = { ...query, task: state.task, direction, offset: (number - 1) * PAGE, limit: PAGE };
  const found = await ask("items", wanted);
  if (!still()) return;
  const place = document.getElementById("items");
  const pages = Math.max(1, Math.ceil(found.total / PAGE));
  const to = (changes) => go({ ...changes });
  const list = h("div", { class: "list" },
    h("p", { class: "soft", role: "status" }, found.total ? `${format.count(found.total)} items, ${found.offset + 1} to ${found.offset + found.rows.length} shown` : "No item goes this way."),
    found.rows.length ? h("div", { class: "rows" }, rows(found, query, state, words)) : null,
    pages > 1 ? h("nav", { class: "pager", "aria-label": "Pages of items" },
      h("button", { type: "button", class: "button", id: "page-before", disabled: number <= 1, onclick: () => to({ page: number - 1 }) }, "Previous"),
      h("span", {}, `page ${format.count(number)} of ${format.count(pages)}`),
      h("button", { type: "button", class: "button", id: "page-after", disabled: number >= pages, onclick: () => to({ page: number + 1 }) }, "Next")) : null);
  const detail = h("article", { class: "detail", id: "detail", "aria-label": "One item" });
  const opened = state.item !== undefined && state.of !== undefined;
  const signs = { gained: "▲", lost: "▼" };
  fill(place, 
    h("div", { class: "items-head" },
      h("h2", { id: "items-title" }, "Items", state.task ? [" of ", data(state.task), " ", h("a", { class: "small", href: address({ ...state, task: null, page: null }) }, "all tasks")] : null),
      segmented("Show", "dir", ["changed", "gained", "lost", "same", "all"].map((value) => ({ value, label: words[value], sign: signs[value] })), direction,
        (dir) => to({ dir, page: null, item: null, of: null }))),
    h("div", { class: opened ? "panes opened" : "panes" }, list, detail));
  if (!opened) {
    lastOpened = null;
    detail.append(h("p", { class: "soft hint" }, "Choose an item to see its prompt, the scores of its choices and what both arms answered. Arrow keys walk through the list."));
    return;
  }
  const at = found.rows.findIndex((row) => row.task === state.of && row.item === state.item);
  const key = JSON.stringify([state.of, state.item]);
  const focus = inside || lastOpened !== key;
  lastOpened = key;
  await renderItem(detail, { ...query, task: state.of, item: state.item }, {
    still, chosen, words, metric: query.metric,
    before: found.rows[at - 1] && at > 0 ? linkOf(found.rows[at - 1], state) : null,
    after: at >= 0 && found.rows[at + 1] ? linkOf(found.rows[at + 1], state) : null,
    focus,
    close: () => { go({ item: null, of: null }); back = { task: state.of, item: state.item }; },
  });
}

let back = null;  // the item to come back to in the list
let lastOpened = null;
const linkOf = (row, state) => address({ ...state, item: row.item, of: row.task });

function rows(found, query, state, words) {
  const several = found.seeds.length > 1;
  const flips = drawn.answer.kind === "flips";
  const [good, bad] = format.outcome(query.metric);
  const of = (values) => {
    const known = values.filter((v) => v !== null);
    if (!known.length) return [format.DASH, "unknown"];
    const mean = format.score(known.reduce((x, y) => x + y, 0) / known.length, query.metric);
    if (!flips) return [mean, mean];
    const right = known.filter((v) => v === 1).length;
    return several ? [`${right}/${known.length}`, `${good} at ${right} of ${known.length} seeds`] : right ? ["✓", good] : ["✗", bad];
  };
  const cell = (values) => { const [brief, spoken] = of(values); return h("td", { class: "number" }, h("span", { "aria-hidden": "true" }, brief), hidden(spoken)); };
  const change = (row) => [
    row.lost ? h("span", { class: "nowrap" }, mark("▼", "lost"), hidden(`${words.lost} `), several ? row.lost : null, " ") : null,
    row.gained ? h("span", { class: "nowrap" }, mark("▲", "gained"), hidden(`${words.gained} `), several ? row.gained : null) : null,
    !row.lost && !row.gained ? h("span", {}, mark("=", "same"), hidden("same")) : null,
  ];
  const line = (row) => {
    const open = row.item === state.item && row.task === state.of;
    return h("tr", { class: open ? "chosen" : null },
      h("th", { scope: "row" }, h("a", { class: "item", id: `item-${row.task}-${row.item}`, href: linkOf(row, state), "aria-current": open ? "true" : null }, data(row.item)),
        state.task || row.item.startsWith(row.task) ? null : [" ", data(row.task, { class: "data soft" })]),
      cell(row.a), cell(row.b), h("td", { class: "change" }, change(row)));
  };
  const body = h("tbody", {}, found.rows.map(line));
  body.addEventListener("keydown", walk);
  if (back) {
    const again = back;
    back = null;
    const at = found.rows.findIndex((row) => row.task === again.task && row.item === again.item);
    queueMicrotask(() => body.querySelectorAll("a.item")[Math.max(0, at)]?.focus());
  }
  return h("table", { class: "items" },
    h("caption", { class: "hidden" }, "Items; the arrow keys walk through them"),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Item"), h("th", { scope: "col", class: "number" }, badge("a")), h("th", { scope: "col", class: "number" }, badge("b")), h("th", { scope: "col" }, "Change"))),
    body);
}

function walk(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step && event.key !== "Home" && event.key !== "End") return;
  const links = [...event.currentTarget.querySelectorAll("a.item")];
  const at = links.indexOf(document.activeElement);
  const next = event.key === "Home" ? 0 : event.key === "End" ? links.length - 1 : Math.min(links.length - 1, Math.max(0, at + step));
  event.preventDefault();
  links[next].focus();
}
