// The items of a comparison: a page of them, and the one that is open.

import { ask } from "./api.js";
import { badge, data, fill, h, hidden, mark, segmented } from "./dom.js";
import * as format from "./format.js";
import { renderItem } from "./item.js";
import { address, go } from "./state.js";
import { WORDS } from "./summary.js";

const PAGE = 50;

export async function renderList(query, state, { kind, still, inside }) {
  const words = WORDS[kind];
  const direction = WORDS.flips[state.dir] ? state.dir : "changed";
  const number = Math.max(1, Number.parseInt(state.page ?? "1", 10) || 1);
  const wanted = { ...query, task: state.task, direction, offset: (number - 1) * PAGE, limit: PAGE };
  const found = await ask("items", wanted);
  if (!still()) return;
  const place = document.getElementById("items");
  const pages = Math.max(1, Math.ceil(found.total / PAGE));
  const to = (changes) => go({ ...changes });
  const list = h(
    "div",
    { class: "list" },
    h(
      "p",
      { class: "soft", role: "status" },
      found.total
        ? `${format.count(found.total)} items, ${found.offset + 1} to ${found.offset + found.rows.length} shown`
        : "No item goes this way.",
    ),
    found.rows.length ? h("div", { class: "rows" }, rows(found, query, state, kind)) : null,
    pages > 1
      ? h(
          "nav",
          { class: "pager", "aria-label": "Pages of items" },
          h(
            "button",
            {
              type: "button",
              class: "button",
              id: "page-before",
              disabled: number <= 1,
              onclick: () => to({ page: number - 1 }),
            },
            "Previous",
          ),
          h("span", {}, `page ${format.count(number)} of ${format.count(pages)}`),
          h(
            "button",
            {
              type: "button",
              class: "button",
              id: "page-after",
              disabled: number >= pages,
              onclick: () => to({ page: number + 1 }),
            },
            "Next",
          ),
        )
      : null,
  );
  const detail = h("article", { class: "detail", id: "detail", "aria-label": "One item" });
  const opened = state.item !== undefined && state.of !== undefined;
  const signs = { gained: "▲", lost: "▼" };
  fill(
    place,
    h(
      "div",
      { class: "items-head" },
      h(
        "h2",
        { id: "items-title" },
        "Items",
        state.task
          ? [
              " of ",
              data(state.task),
              " ",
              h("a", { class: "small", href: address({ ...state, task: null, page: null }) }, "all tasks"),
            ]
          : null,
      ),
      segmented(
        "Show",
        "dir",
        ["changed", "gained", "lost", "same", "all"].map((value) => ({
          value,
          label: words[value],
          sign: signs[value],
        })),
        direction,
        (dir) => to({ dir, page: null, item: null, of: null }),
      ),
    ),
    h("div", { class: opened ? "panes opened" : "panes" }, list, detail),
  );
  if (!opened) {
    lastOpened = null;
    detail.append(
      h(
        "p",
        { class: "soft hint" },
        "Choose an item to see its prompt, the scores of its choices and what both arms answered. Arrow keys walk through the list.",
      ),
    );
    return;
  }
  const at = found.rows.findIndex((row) => row.task === state.of && row.item === state.item);
  const key = JSON.stringify([state.of, state.item]);
  const focus = inside || lastOpened !== key;
  lastOpened = key;
  await renderItem(
    detail,
    { ...query, task: state.of, item: state.item },
    {
      still,
      metric: query.metric,
      before: found.rows[at - 1] && at > 0 ? linkOf(found.rows[at - 1], state) : null,
      after: at >= 0 && found.rows[at + 1] ? linkOf(found.rows[at + 1], state) : null,
      focus,
      close: () => {
        go({ item: null, of: null });
        back = { task: state.of, item: state.item };
      },
    },
  );
}

let back = null; // the item to come back to in the list
let lastOpened = null;
const linkOf = (row, state) => address({ ...state, item: row.item, of: row.task });

function rows(found, query, state, kind) {
  const words = WORDS[kind];
  const several = found.seeds.length > 1;
  const flips = kind === "flips";
  const [good, bad] = format.outcome(query.metric);
  const of = (values) => {
    const known = values.filter((v) => v !== null);
    if (!known.length) return [format.DASH, "unknown"];
    const mean = format.score(known.reduce((x, y) => x + y, 0) / known.length, query.metric);
    if (!flips) return [mean, mean];
    const right = known.filter((v) => v === 1).length;
    return several
      ? [`${right}/${known.length}`, `${good} at ${right} of ${known.length} seeds`]
      : right
        ? ["✓", good]
        : ["✗", bad];
  };
  const cell = (values) => {
    const [brief, spoken] = of(values);
    return h("td", { class: "number" }, h("span", { "aria-hidden": "true" }, brief), hidden(spoken));
  };
  const change = (row) => [
    row.lost
      ? h(
          "span",
          { class: "nowrap" },
          mark("▼", "lost"),
          hidden(`${words.lost} `),
          several ? row.lost : null,
          " ",
        )
      : null,
    row.gained
      ? h(
          "span",
          { class: "nowrap" },
          mark("▲", "gained"),
          hidden(`${words.gained} `),
          several ? row.gained : null,
        )
      : null,
    !row.lost && !row.gained ? h("span", {}, mark("=", "same"), hidden("same")) : null,
  ];
  const line = (row) => {
    const open = row.item === state.item && row.task === state.of;
    return h(
      "tr",
      { class: open ? "chosen" : null },
      h(
        "th",
        { scope: "row" },
        h(
          "a",
          {
            class: "item",
            id: `item-${row.task}-${row.item}`,
            href: linkOf(row, state),
            "aria-current": open ? "true" : null,
          },
          data(row.item),
        ),
        state.task || row.item.startsWith(row.task) ? null : [" ", data(row.task, { class: "data soft" })],
      ),
      cell(row.a),
      cell(row.b),
      h("td", { class: "change" }, change(row)),
    );
  };
  const body = h("tbody", {}, found.rows.map(line));
  body.addEventListener("keydown", walk);
  if (back) {
    const again = back;
    back = null;
    const at = found.rows.findIndex((row) => row.task === again.task && row.item === again.item);
    queueMicrotask(() => body.querySelectorAll("a.item")[Math.max(0, at)]?.focus());
  }
  return h(
    "table",
    { class: "items" },
    h("caption", { class: "hidden" }, "Items; the arrow keys walk through them"),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("th", { scope: "col" }, "Item"),
        h("th", { scope: "col", class: "number" }, badge("a")),
        h("th", { scope: "col", class: "number" }, badge("b")),
        h("th", { scope: "col" }, "Change"),
      ),
    ),
    body,
  );
}

function walk(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step && event.key !== "Home" && event.key !== "End") return;
  const links = [...event.currentTarget.querySelectorAll("a.item")];
  const at = links.indexOf(document.activeElement);
  const next =
    event.key === "Home"
      ? 0
      : event.key === "End"
        ? links.length - 1
        : Math.min(links.length - 1, Math.max(0, at + step));
  event.preventDefault();
  links[next].focus();
}
