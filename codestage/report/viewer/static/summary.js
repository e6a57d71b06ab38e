// What changed between two arms: over all items, and task by task.

import { badge, data, h, hidden, mark, wide } from "./dom.js";
import * as format from "./format.js";
import { address } from "./state.js";

// The words for a score that is right or wrong, and for one that gets better or worse.
export const WORDS = {
  flips: { gained: "gained", lost: "lost", changed: "flipped", same: "same", all: "all" },
  graded: { gained: "better", lost: "worse", changed: "changed", same: "same", all: "all" },
};

export function renderSummary(answer, { a, b, query }, state, nameOf) {
  const words = WORDS[answer.kind];
  const told = tells(answer, query.metric);
  const { total } = answer;
  const seeds = answer.seeds.length === 1 ? `seed ${answer.seeds[0]}` : `${answer.seeds.length} seeds`;
  const left = [
    answer.only_a ? `${format.count(answer.only_a)} are only in A` : null,
    answer.only_b ? `${format.count(answer.only_b)} only in B` : null,
    answer.gold_differs
      ? `${format.count(answer.gold_differs)} are left out: their right answers differ`
      : null,
    total.unknown ? `${format.count(total.unknown)} pairs have an unknown score and are not counted` : null,
  ].filter(Boolean);
  const tile = (name, value, under, kind) =>
    h(
      "div",
      { class: kind },
      h("dt", {}, name),
      h("dd", {}, h("span", { class: "big" }, value), h("span", { class: "soft" }, under)),
    );
  const of = (n) =>
    total.pairs ? `${format.percent(n / total.pairs)} % of ${format.count(total.pairs)} pairs` : "no pairs";
  return [
    h(
      "section",
      { class: "card", "aria-labelledby": "sum-title" },
      h(
        "h2",
        { id: "sum-title" },
        badge("b"),
        " ",
        data(query.arm_b),
        a === b ? null : [" of ", data(nameOf(b))],
        " against ",
        badge("a"),
        " ",
        data(query.arm_a),
        a === b ? null : [" of ", data(nameOf(a))],
      ),
      h(
        "p",
        { class: "soft" },
        `${format.count(answer.matched)} items match, ${seeds}. `,
        left.length ? left.join("; ") + "." : null,
      ),
      h(
        "dl",
        { class: "figures" },
        tile(
          format.metricName(query.metric),
          [
            shown(total.mean_a, query.metric),
            mark(" → ", "to"),
            hidden(" to "),
            shown(total.mean_b, query.metric),
          ],
          ["A to B, ", difference(total, query.metric), answer.lower_is_better ? " (lower is better)" : null],
        ),
        tile(
          [mark("▲", "gained"), words.gained],
          format.count(total.gained),
          [told.gained, h("br"), of(total.gained)],
          "gained",
        ),
        tile(
          [mark("▼", "lost"), words.lost],
          format.count(total.lost),
          [told.lost, h("br"), of(total.lost)],
          "lost",
        ),
        tile([mark("=", "same"), "the same"], format.count(total.same), of(total.same)),
        total.p === null
          ? null
          : tile("McNemar's exact p", format.probability(total.p), "that gains and losses are as likely"),
      ),
      tasks(answer, query, state, words),
      h(
        "p",
        { class: "soft small" },
        answer.kind === "flips"
          ? answer.seeds.length === 1
            ? "p: McNemar's exact test on this seed, not corrected for the number of tasks."
            : "Counts are pooled over seeds; seeds answer the same items, so there is no p here. Choose one seed for McNemar's exact test."
          : "Scores that are not right or wrong have no flips: better and worse count every difference, however small.",
        " What the study bears out, with seeds and all tasks taken into account, is on its own page.",
      ),
    ),
  ];
}

function tells(answer, metric) {
  const [good, bad] = format.outcome(metric);
  return answer.kind === "flips"
    ? { gained: `${bad} in A, ${good} in B`, lost: `${good} in A, ${bad} in B` }
    : { gained: "better in B", lost: "worse in B" };
}

const shown = (mean, metric) => (metric === "bpb" ? format.fixed(mean, 3) : format.percent(mean));
function difference(row, metric) {
  if (row.mean_a === null || row.mean_b === null) return format.DASH;
  const gap = row.mean_b - row.mean_a;
  return metric === "bpb" ? `${format.signed(gap, 3)} bits` : `${format.signed(100 * gap)} points`;
}

function tasks(answer, query, state, words) {
  const largest = Math.max(
    0.001,
    ...answer.tasks.map((row) => Math.max(row.gained, row.lost) / Math.max(1, row.pairs)),
  );
  const bar = (row) => {
    const part = (kind, n) => {
      const x = h("span", { class: `bar ${kind}` });
      x.style.width = `${Math.min(50, (50 * n) / Math.max(1, row.pairs) / largest)}%`;
      return x;
    };
    return h("div", { class: "both" }, part("lost", row.lost), part("gained", row.gained));
  };
  const pick = (task) => address({ ...state, task, page: null, item: null, of: null });
  const single = answer.kind === "flips" && answer.seeds.length === 1;
  const line = (row) =>
    h(
      "tr",
      { class: state.task === row.task ? "chosen" : null },
      h(
        "th",
        { scope: "row" },
        h(
          "a",
          {
            id: `task-${row.task}`,
            href: pick(state.task === row.task ? null : row.task),
            "aria-current": state.task === row.task ? "true" : null,
          },
          data(row.task),
        ),
        " ",
        row.domain ? data(row.domain, { class: "data soft domain" }) : null,
      ),
      h("td", { class: "number wide" }, format.count(row.items)),
      h("td", { class: "number wide" }, shown(row.mean_a, query.metric)),
      h("td", { class: "number wide" }, shown(row.mean_b, query.metric)),
      h("td", { class: "number wide nowrap" }, difference(row, query.metric).replace(/ .*/, "")),
      h("td", { class: "number lost" }, mark("▼", "lost only"), format.count(row.lost)),
      h("td", { class: "drawing", "aria-hidden": "true" }, bar(row)),
      h("td", { class: "number left" }, mark("▲", "gained only"), format.count(row.gained)),
      single ? h("td", { class: "number wide nowrap" }, format.probability(row.p)) : null,
      h(
        "td",
        { class: "facts" },
        `${format.count(row.items)} items, ${shown(row.mean_a, query.metric)} → ${shown(row.mean_b, query.metric)} (${difference(row, query.metric)})`,
        single ? `, p ${format.probability(row.p)}` : "",
      ),
    );
  const head = (label, kind = "number") => h("th", { scope: "col", class: kind }, label);
  return wide(
    "Tasks",
    h(
      "table",
      { class: "tasks" },
      h("caption", {}, "By task; a name filters the items below"),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          head("Task", null),
          head("Items"),
          head([badge("a"), hidden(" score")]),
          head([badge("b"), hidden(" score")]),
          head("Difference"),
          head([mark("▼", "lost"), words.lost]),
          h("td", { "aria-hidden": "true" }),
          head([mark("▲", "gained"), words.gained], "left"),
          single ? head("p") : null,
        ),
      ),
      h("tbody", {}, answer.tasks.map(line)),
    ),
  );
}
