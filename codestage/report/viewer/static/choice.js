// Choosing what is compared: two arms, of one study or of two, after a stage, in one mode and score.

import { badge, h, hidden, mark, select } from "./dom.js";
import * as format from "./format.js";
import { go } from "./state.js";

// What is asked, with what was not said filled in: code against none, after the last stage both have.
export function settle(state, studies) {
  const ready = studies.filter((s) => s.ready);
  if (!ready.length) return null;
  const a = studies[state.study].ready ? studies[state.study] : ready[0];
  const b = studies[Number(state.b)]?.ready && state.b ? studies[Number(state.b)] : a;
  const arm = (study, wanted, fallback) =>
    study.arms.find((x) => x.name === wanted) ?? fallback(study.arms, study);
  const armA = arm(a, state.arm_a, (arms) => arms.find((x) => !x.code.length) ?? arms[0]);
  const armB = arm(b, state.arm_b, (arms, study) =>
    a === b
      ? (arms.find((x) => x.code.join() === study.stages[0]) ??
        arms.find((x) => x.code.length === 1) ??
        arms.find((x) => x !== armA) ??
        armA)
      : (arms.find((x) => x.name === armA.name) ?? arms[0]),
  );
  const scored = (study) => [...new Set(study.places.map((p) => p.stage))];
  const stage = (study, wanted) =>
    scored(study).find((s) => s === wanted) ?? study.stages.filter((s) => scored(study).includes(s)).at(-1);
  const [stageA, stageB] = [stage(a, state.stage_a), stage(b, state.stage_b ?? state.stage_a)];
  const places = (study, at) => study.places.filter((p) => p.stage === at);
  const common = places(a, stageA).filter((p) =>
    places(b, stageB).some((q) => q.cot === p.cot && q.metric === p.metric),
  );
  const cots = [...new Set(common.map((p) => p.cot))];
  const cot = cots.includes(state.cot) ? state.cot : cots[0];
  const metrics = common.filter((p) => p.cot === cot).map((p) => p.metric);
  const metric = metrics.includes(state.metric) ? state.metric : metrics[0];
  const seeds = a.seeds.filter((seed) => b.seeds.includes(seed));
  const seed = seeds.map(String).includes(state.seed) ? state.seed : "all";
  return {
    a,
    b,
    cots,
    metrics,
    seeds,
    stagesA: scored(a),
    stagesB: scored(b),
    query: {
      a: a.id,
      b: b.id,
      arm_a: armA.name,
      arm_b: armB.name,
      stage_a: stageA,
      stage_b: stageB,
      cot,
      metric,
      seed,
    },
  };
}

export function renderChoice(chosen, studies, nameOf) {
  const { a, b, query } = chosen;
  const ready = studies.filter((s) => s.ready).map((s) => ({ value: String(s.id), label: nameOf(s) }));
  // What was chosen stays where it still makes sense; the rest falls back.
  const pick = (changes) =>
    go({ ...query, study: query.a, a: null, page: null, task: null, item: null, of: null, ...changes });
  const keepTask = (changes) => go({ ...query, study: query.a, a: null, page: null, ...changes });
  const side = (letter, study, arm, stage, stages) =>
    h(
      "fieldset",
      { class: `side ${letter}` },
      h("legend", {}, badge(letter), letter === "a" ? " Baseline" : " Compared with it"),
      ready.length > 1
        ? select("Study", ready, String(study.id), (id) => pick(letter === "a" ? { study: id } : { b: id }), {
            id: `study-${letter}`,
          })
        : null,
      select(
        "Arm",
        study.arms.map((x) => ({
          value: x.name,
          label: x.role === "grid" ? x.name : `${x.name} (${x.role})`,
        })),
        arm,
        (name) => keepTask({ [`arm_${letter}`]: name }),
        { id: `arm-${letter}` },
      ),
      select("After stage", stages.map(same), stage, (name) => keepTask({ [`stage_${letter}`]: name }), {
        id: `stage-${letter}`,
      }),
    );
  return h(
    "section",
    { class: "card", "aria-label": "What is compared" },
    h(
      "div",
      { class: "sides" },
      side("a", a, query.arm_a, query.stage_a, chosen.stagesA),
      h(
        "button",
        {
          type: "button",
          class: "button swap",
          id: "swap",
          onclick: () =>
            keepTask({
              study: query.b,
              b: query.a,
              arm_a: query.arm_b,
              arm_b: query.arm_a,
              stage_a: query.stage_b,
              stage_b: query.stage_a,
            }),
        },
        mark("⇄", "swap"),
        hidden("Swap A and B"),
      ),
      side("b", b, query.arm_b, query.stage_b, chosen.stagesB),
    ),
    h(
      "div",
      { class: "fields" },
      select(
        "Mode",
        chosen.cots.map((cot) => ({ value: cot, label: format.modeName(cot) })),
        query.cot,
        (cot) => keepTask({ cot }),
        { id: "cmp-cot" },
      ),
      select(
        "Score",
        chosen.metrics.map((m) => ({ value: m, label: format.metricName(m) })),
        query.metric,
        (metric) => keepTask({ metric }),
        { id: "cmp-metric" },
      ),
      select(
        "Seeds",
        [
          {
            value: "all",
            label:
              chosen.seeds.length === 1
                ? `the one in common (${chosen.seeds[0]})`
                : `all ${chosen.seeds.length}`,
          },
          ...chosen.seeds.map((s) => ({ value: String(s), label: `seed ${s}` })),
        ],
        query.seed,
        (seed) => keepTask({ seed }),
        { id: "cmp-seed" },
      ),
    ),
  );
}

const same = (value) => ({ value, label: value });
