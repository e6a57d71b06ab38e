// Every effect by domain and task, as a table that sorts and filters.

import { data, fill, h, mark, segmented, select, wide } from "./dom.js";
import { between, itemsLink, verdict } from "./effect.js";
import * as format from "./format.js";
import { note } from "./state.js";

const FIRST_ROWS = 60;
let sorting = { key: null, down: false };
let everything = false;

const COLUMNS = [
  ["label", "Effect"],
  ["name", "On"],
  ["estimate", "Estimate"],
  ["low", "Interval"],
  ["p_adjusted", "Adjusted p"],
  ["verdict", "Verdict"],
  ["n_items", "Items"],
];

export function forgetSorting() {
  [sorting, everything] = [{ key: null, down: false }, false];
}

export function renderEffects(told, state) {
  const section = h("section", { class: "card", "aria-labelledby": "effects-title" });
  const body = h("div", {});
  const contrasts = [...new Map(told.rows.map((row) => [row.contrast, row.label]))];
  const draw = () => fill(body, effectRows(told, state, draw));
  const show = (changes) => {
    Object.assign(state, changes);
    note(changes);
    draw();
  };
  section.append(
    h("h2", { id: "effects-title" }, "By domain and task"),
    h(
      "div",
      { class: "fields" },
      segmented(
        "Level",
        "level",
        [
          ["all", "all"],
          ["domain", "domains"],
          ["task", "tasks"],
        ].map(([value, label]) => ({ value, label })),
        state.level ?? "all",
        (level) => show({ level: level === "all" ? null : level }),
      ),
      select(
        "Effect",
        [{ value: "", label: "every effect" }, ...contrasts.map(([value, label]) => ({ value, label }))],
        state.contrast ?? "",
        (contrast) => show({ contrast }),
        { id: "pick-contrast" },
      ),
      h(
        "div",
        { class: "field" },
        h("label", { for: "find" }, "Domain or task contains"),
        h("input", {
          id: "find",
          type: "search",
          value: state.find ?? "",
          autocomplete: "off",
          oninput: (event) => {
            state.find = event.target.value;
            draw();
          },
          onchange: () => note({ find: state.find }),
        }),
      ),
    ),
    body,
  );
  draw();
  return section;
}

function effectRows(told, state, draw) {
  const find = (state.find ?? "").toLowerCase();
  const rows = told.rows.filter(
    (row) =>
      row.level !== "overall" &&
      (!state.level || row.level === state.level) &&
      (!state.contrast || row.contrast === state.contrast) &&
      row.name.toLowerCase().includes(find),
  );
  if (sorting.key) rows.sort(by(sorting));
  const some = everything ? rows : rows.slice(0, FIRST_ROWS);
  const sort = (key) => {
    sorting = { key, down: sorting.key === key && !sorting.down };
    draw();
  };
  const head = ([key, label], i) => {
    const on = sorting.key === key;
    return h(
      "th",
      {
        scope: "col",
        class: i > 1 && key !== "verdict" ? "number" : null,
        "aria-sort": on ? (sorting.down ? "descending" : "ascending") : "none",
      },
      h(
        "button",
        { type: "button", class: "sort", id: `sort-${key}`, onclick: () => sort(key) },
        label,
        mark(on ? (sorting.down ? "▼" : "▲") : "↕", "arrow"),
      ),
    );
  };
  const line = (row) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, data(row.label)),
      h("td", {}, data(row.name), " ", h("span", { class: "soft" }, row.level)),
      h("td", { class: "number" }, format.signed(row.estimate, format.decimals(row.unit))),
      h("td", { class: "number nowrap" }, between(row, row.unit)),
      h("td", { class: "number nowrap" }, format.probability(row.p_adjusted)),
      h("td", {}, verdict(row)),
      h("td", { class: "number" }, format.count(row.n_items)),
      h("td", {}, itemsLink(row, told)),
    );
  return [
    h(
      "p",
      { class: "soft", role: "status" },
      `${format.count(rows.length)} effects`,
      some.length < rows.length ? `, the first ${some.length} shown` : "",
    ),
    wide(
      "Effects by domain and task",
      h(
        "table",
        { class: "effects" },
        h("caption", { class: "hidden" }, "Effects by domain and task; the heads sort"),
        h("thead", {}, h("tr", {}, COLUMNS.map(head), h("th", { scope: "col" }, "Drill down"))),
        h("tbody", {}, some.map(line)),
      ),
    ),
    some.length < rows.length
      ? h(
          "button",
          {
            type: "button",
            class: "button",
            onclick: () => {
              everything = true;
              draw();
            },
          },
          `Show all ${format.count(rows.length)}`,
        )
      : null,
  ];
}

function by({ key, down }) {
  const turn = down ? -1 : 1;
  return (a, b) => {
    const [x, y] = [a[key], b[key]];
    if (x === null || y === null) return (x === null) - (y === null); // unknown last, either way
    return turn * (typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y);
  };
}
