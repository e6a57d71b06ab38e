// How far a study is.

import { data, fill, h, mark, say, wide } from "./dom.js";
import * as format from "./format.js";

const STATES = { running: "▶", done: "✓", stopped: "■", failed: "✗" };
export function renderProgress(answer, before) {
  const place = document.getElementById("progress");
  if (!place) return;
  const { status, note } = answer ?? { status: null, note: "no answer yet" };
  if (!status) {
    place.className = "card";
    fill(
      place,
      h("h2", { id: "progress-title" }, "Progress"),
      h("p", {}, "Nothing is known of its run: ", data(note)),
    );
    return;
  }
  if (place.childElementCount && before && JSON.stringify(before) === JSON.stringify(answer)) return;
  const folded = place.querySelector("details.warnings")?.open === false;
  const { done, running, waiting } = status.steps;
  const total = done + running + waiting;
  const share = status.tokens_total ? status.tokens_done / status.tokens_total : 0;
  place.className = `card progress ${status.state}`;
  fill(
    place,
    h(
      "h2",
      { id: "progress-title" },
      "Progress ",
      h("span", { class: "badge" }, mark(STATES[status.state] ?? "·", "state"), data(status.state)),
    ),
    h(
      "dl",
      { class: "figures" },
      figure(
        "Steps done",
        `${format.count(done)} of ${format.count(total)}`,
        `${format.count(running)} running, ${format.count(waiting)} waiting`,
      ),
      figure(
        "Tokens trained",
        `${format.tokens(status.tokens_done)}`,
        `of ${format.tokens(status.tokens_total)} (${format.percent(share, 0)} %)`,
      ),
      status.state === "running"
        ? figure("Speed", `${format.tokens(status.tokens_per_second)}`, "tokens a second")
        : null,
      status.state === "running"
        ? figure(
            "Time left",
            status.seconds_left === null ? "not known yet" : `about ${format.duration(status.seconds_left)}`,
            uncertainty(status.seconds_left_range),
          )
        : null,
      figure("Worked", format.duration(status.seconds), "so far, all calls together"),
    ),
    h("progress", { max: Math.max(1, total), value: done, "aria-label": "Steps done" }),
    status.running.length ? nowRunning(status.running) : null,
    status.warnings.length
      ? h(
          "details",
          { class: "warnings", open: !folded },
          h("summary", { id: "warnings" }, `Warnings (${status.warnings.length})`),
          h(
            "ul",
            {},
            status.warnings.map((warning) => h("li", {}, data(warning))),
          ),
        )
      : null,
  );
  announce(status, before?.status, total);
}

const figure = (name, value, under) =>
  h(
    "div",
    {},
    h("dt", {}, name),
    h("dd", {}, h("span", { class: "big" }, value), h("span", { class: "soft" }, under)),
  );

// The range that holds the time left nine times in ten, where that is known.
function uncertainty(range) {
  if (!range) return "";
  const [low, high] = range.map(format.duration);
  return low === high ? "" : `${low} to ${high}`;
}

// Said to screen readers when the state changes and at each tenth of the steps, not every two seconds.
function announce(status, before, total) {
  const tenth = (s) => Math.floor((10 * s.steps.done) / Math.max(1, total));
  if (before && (before.state !== status.state || tenth(before) !== tenth(status))) {
    say(`${status.state}: ${status.steps.done} of ${total} steps done.`);
  }
}

function nowRunning(rows) {
  const line = (row) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, data(row.step)),
      h("td", {}, data(row.kind)),
      h("td", { class: "number" }, row.tokens === undefined ? format.DASH : format.tokens(row.tokens)),
      h("td", { class: "number" }, format.fixed(row.loss, 3)),
      h(
        "td",
        { class: "number" },
        row.tokens_per_second === undefined ? format.DASH : format.tokens(Math.round(row.tokens_per_second)),
      ),
    );
  return wide(
    "What is running",
    h(
      "table",
      { class: "running-now" },
      h("caption", { class: "hidden" }, "What is running"),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ["Step", "Kind", "Tokens", "Loss", "Tokens a second"].map((head, i) =>
            h("th", { scope: "col", class: i > 1 ? "number" : null }, head),
          ),
        ),
      ),
      h("tbody", {}, rows.map(line)),
    ),
  );
}
