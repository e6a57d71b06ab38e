// Two arms item by item: choosing them, what flipped on each task, and the items to look at.

import { ask } from "./api.js";
import { renderChoice, settle } from "./choice.js";
import { fill, h, problem } from "./dom.js";
import { renderList } from "./list.js";
import { renderSummary } from "./summary.js";

let drawn = null; // the comparison that is shown

export async function renderCompare(main, state, { studies, nameOf, fresh, still }) {
  const chosen = settle(state, studies);
  const inside = document.getElementById("detail")?.contains(document.activeElement);
  if (!chosen) {
    fill(
      main,
      h("h1", {}, "Compare"),
      h(
        "p",
        { class: "card" },
        "No study here has results yet; there is nothing to compare before a run has finished.",
      ),
    );
    drawn = null;
    return;
  }
  if (fresh || !document.getElementById("choice")) {
    fill(main, h("h1", {}, "Which items flipped?"), h("div", { id: "choice" }), h("div", { id: "told" }));
    drawn = null;
  }
  fill(document.getElementById("choice"), renderChoice(chosen, studies, nameOf));
  const key = JSON.stringify(chosen.query);
  const told = document.getElementById("told");
  try {
    if (drawn?.key !== key) {
      told.classList.add("waiting");
      const answer = await ask("compare", chosen.query);
      if (!still()) return;
      drawn = { key, answer };
      fill(
        told,
        h("div", { id: "summary" }),
        h("section", { class: "card", id: "items", "aria-labelledby": "items-title" }),
      );
    }
    fill(document.getElementById("summary"), renderSummary(drawn.answer, chosen, state, nameOf));
    await renderList(chosen.query, state, { kind: drawn.answer.kind, still, inside });
  } catch (error) {
    drawn = null;
    if (still()) fill(told, problem(error));
  } finally {
    told.classList.remove("waiting");
  }
}
