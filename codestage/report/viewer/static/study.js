// One study: how far it is, what it found overall, and every effect as a table.

import { ask } from "./api.js";
import { data, fill, h, hidden, mark, problem } from "./dom.js";
import { forgetSorting, renderEffects } from "./effects.js";
import { renderAnswers } from "./forest.js";
import * as format from "./format.js";
import { renderProgress } from "./progress.js";
import { address } from "./state.js";

export async function renderStudy(main, state, { study, answer, fresh, still }) {
  if (fresh) {
    fill(
      main,
      heading(study, answer),
      h("section", { id: "progress", "aria-labelledby": "progress-title" }),
      h("div", { id: "findings" }),
    );
    renderProgress(answer, null);
    forgetSorting();
  }
  const findings = document.getElementById("findings");
  if (study.error) return fill(findings, problem(new Error(study.error)));
  if (!study.ready) {
    fill(
      findings,
      h(
        "section",
        { class: "card" },
        h("h2", {}, "Results"),
        h("p", {}, "There are none yet. They appear here by themselves when the study has finished."),
      ),
    );
    return;
  }
  if (!study.effects) {
    fill(
      findings,
      h(
        "section",
        { class: "card" },
        h("h2", {}, "Results"),
        h(
          "p",
          {},
          "The records are there; the effects are not worked out yet. They appear here by themselves. ",
          h("a", { href: address({ view: "compare", study: study.id }) }, "Items can be compared"),
          " already.",
        ),
      ),
    );
    return;
  }
  const asked = { study: study.id, stage: state.stage, cot: state.cot, metric: state.metric };
  const told = { ...(await ask("effects", asked)), study: study.id };
  if (!still()) return;
  fill(findings, renderAnswers(told), renderEffects(told, state));
}

function heading(study, answer) {
  const name = study.ready ? study.name : (answer?.status?.study ?? study.name);
  const facts = study.ready
    ? `${format.count(study.arms.length)} arms · ${study.seeds.length} seeds · ${study.tasks.length} tasks · stages: ${study.stages.join(", ")}`
    : null;
  return h(
    "div",
    { class: "title" },
    h(
      "div",
      {},
      h("h1", {}, data(name)),
      h("p", { class: "soft" }, data(study.folder), facts ? [h("br"), data(facts)] : null),
    ),
    study.report
      ? h(
          "a",
          { class: "button", href: `/report/${study.id}/`, target: "_blank", rel: "noopener" },
          "Report ",
          hidden("(opens in a new tab)"),
          mark("↗", "out"),
        )
      : null,
  );
}
