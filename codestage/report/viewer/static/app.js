// The page: which view is shown, of which study, and following the study while it runs.

import { ask } from "./api.js";
import { renderCompare } from "./compare.js";
import { data, fill, h, problem, say, select } from "./dom.js";
import { renderProgress } from "./progress.js";
import { address, go, read } from "./state.js";
import { renderStudy } from "./study.js";

const VIEWS = [
  ["study", "Study"],
  ["compare", "Compare"],
];
const QUICK = 1000,
  SLOW = 10000;
const main = document.getElementById("main");
let studies = [];
const known = new Map(); // study -> how far it was when last asked, with the stamp of its results
let shown = null;

const current = () => {
  const state = read();
  const view = VIEWS.some(([name]) => name === state.view) ? state.view : "study";
  const study = studies[Number(state.study)] ?? studies[0];
  return { ...state, view, study: study.id };
};

function renderTop(state) {
  fill(
    document.getElementById("views"),
    VIEWS.map(([name, label]) =>
      h(
        "a",
        {
          id: `view-${name}`,
          href: address({ view: name, study: state.study }),
          "aria-current": state.view === name ? "page" : null,
        },
        label,
      ),
    ),
  );
  const which = document.getElementById("which");
  const choices = studies.map((s) => ({ value: String(s.id), label: nameOf(s) }));
  fill(
    which,
    studies.length < 2 || state.view === "compare"
      ? null
      : select(
          "Study",
          choices,
          String(state.study),
          (id) => go({ view: "study", study: id }, { fresh: true }),
          { id: "pick-study" },
        ),
  );
  const study = studies[state.study];
  document.title = `${VIEWS.find(([name]) => name === state.view)[1]}: ${study.name} · codestage`;
}

// Studies of one name are told apart by their folders.
function nameOf(study) {
  const same = studies.filter((other) => other.name === study.name).length > 1;
  return same ? `${study.name} (${study.folder})` : study.name;
}

async function render({ again = false } = {}) {
  const state = current();
  renderTop(state);
  const fresh = !shown || shown.view !== state.view || shown.study !== state.study || again;
  shown = state;
  const still = () => shown === state;
  const place = location.hash;
  main.setAttribute("aria-busy", "true");
  try {
    if (state.view === "compare") await renderCompare(main, state, { studies, nameOf, fresh, still });
    else
      await renderStudy(main, state, {
        study: studies[state.study],
        answer: known.get(state.study),
        fresh,
        still,
      });
  } catch (error) {
    if (still()) fill(main, h("h1", {}, "Study ", data(studies[state.study].name)), problem(error));
  }
  if (!still()) return;
  main.removeAttribute("aria-busy");
  main.dataset.shown = place;
}

// Asks how far the studies on the page are; results that have come or changed are shown at once.
async function follow() {
  const state = current();
  let pause = SLOW;
  try {
    for (const id of document.hidden ? [] : new Set([state.study, studies[state.b]?.id ?? state.study])) {
      const answer = await ask("status", { study: id });
      await took(id, answer);
      if (answer.status?.state === "running") pause = QUICK;
    }
    document.getElementById("gone")?.remove();
  } catch (error) {
    if (!document.getElementById("gone")) main.prepend(h("div", { id: "gone" }, problem(error)));
  }
  clearTimeout(follow.next);
  follow.next = setTimeout(follow, pause);
}

async function took(id, answer) {
  const before = known.get(id);
  known.set(id, answer);
  if (before && before.stamp !== answer.stamp) {
    studies = (await ask("studies")).studies;
    const focus = document.activeElement?.id;
    await render({ again: true });
    if (focus && document.activeElement === document.body)
      document.getElementById(focus)?.focus({ preventScroll: true });
    say("The results have changed; the page shows the new ones.");
  } else if (shown?.view === "study" && shown.study === id) {
    renderProgress(answer, before ?? null);
  }
}

// What is known of a study before it is shown for the first time.
async function learn(id) {
  if (!known.has(id)) known.set(id, await ask("status", { study: id }));
}

async function begin() {
  try {
    studies = (await ask("studies")).studies;
    await learn(current().study);
  } catch (error) {
    main.replaceChildren(h("h1", {}, "codestage view"), problem(error));
    return;
  }
  addEventListener("hashchange", async () => {
    await learn(current().study).catch(() => null); // follow() says what is wrong
    await render();
  });
  document.addEventListener("visibilitychange", () => document.hidden || follow());
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address after # holds the view
    main.focus();
  });
  await render();
  follow.next = setTimeout(follow, QUICK);
}

begin();
