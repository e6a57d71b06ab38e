// One item: what was asked, and what both arms made of it at every seed.

import { ask } from "./api.js";
import { badge, data, fill, h, hidden, mark } from "./dom.js";
import { compareWords } from "./diff.js";
import * as format from "./format.js";

const STATUS = {
  ok: null,
  unparsed: "no answer could be read",
  empty: "nothing was written",
  missing: "no answer",
  cut: "cut to fit the model's context",
};

export async function renderItem(place, query, { still, metric, focus, before, after, close }) {
  const told = await ask("item", query);
  if (!still()) return;
  const title = h(
    "h3",
    { id: "item-title", tabindex: "-1" },
    data(told.item),
    " ",
    data(told.task, { class: "data soft" }),
  );
  const step = (label, href, sign) =>
    href
      ? h("a", { class: "button", href, id: `item-${label}` }, mark(sign, "step"), hidden(`${label} item`))
      : h("span", { class: "button off", "aria-hidden": "true" }, sign);
  const kind = flipsIn(told, metric);
  fill(
    place,
    h(
      "div",
      { class: "item-head" },
      title,
      h(
        "div",
        { class: "steps" },
        step("previous", before, "↑"),
        step("next", after, "↓"),
        h(
          "button",
          { type: "button", class: "button", id: "item-close", onclick: close },
          "Back to the list",
        ),
      ),
    ),
    prompt(told),
    ...seeds(told, metric, kind),
  );
  place.setAttribute("aria-label", `Item ${told.item} of ${told.task}`);
  place.onkeydown = (event) => {
    if (event.key === "Escape") close();
  };
  if (!focus) return;
  title.focus();
  if (matchMedia("(max-width: 900px)").matches) place.scrollIntoView({ block: "start" });
}

function prompt(told) {
  const shown = told.prompt;
  const hashes = new Set([...told.a, ...told.b].map((entry) => entry.prompt_hash).filter(Boolean));
  const alike =
    hashes.size === 0
      ? ""
      : hashes.size === 1
        ? "Both arms saw the same prompt"
        : "The prompts that were seen differ";
  const under = h(
    "p",
    { class: "soft small" },
    alike,
    hashes.size
      ? [" (hash ", [...hashes].map((hash, i) => [i ? ", " : "", h("code", {}, data(hash))]), ")"]
      : null,
    shown ? ". As the models saw it, the template stands around the text." : ".",
  );
  if (!shown)
    return h(
      "section",
      { class: "prompt" },
      h("h4", {}, "Prompt"),
      h("p", {}, told.note),
      answer(told),
      under,
    );
  return h(
    "section",
    { class: "prompt" },
    h("h4", {}, "Prompt"),
    text(shown.program ?? shown.instruction ?? ""),
    shown.rationale ? [h("h4", {}, "Reasoning that was supplied"), text(shown.rationale)] : null,
    shown.choices.length ? (scored(told) ? null : options(shown)) : answer(told),
    under,
  );
}

const answer = (told) =>
  told.gold === null
    ? null
    : h(
        "p",
        {},
        "Right answer: ",
        h("strong", {}, data(told.gold)),
        told.prompt?.aliases?.length
          ? [" (also ", told.prompt.aliases.map((alias, i) => [i ? ", " : "", data(alias)]), ")"]
          : null,
      );

const scored = (told) => [...told.a, ...told.b].some((entry) => entry.choice_scores);

// Choices where the answer was written, so that none has a score.
const options = (shown) =>
  h(
    "ul",
    { class: "options" },
    shown.choices.map((choice, i) =>
      h(
        "li",
        {},
        data(choice),
        i === shown.gold ? h("span", { class: "tag gold" }, mark("✓", "right"), "right") : null,
      ),
    ),
  );

const text = (content) => h("div", { class: "text", dir: "auto" }, String(content));

function flipsIn(told, metric) {
  return [...told.a, ...told.b].every(
    (entry) =>
      entry.metrics[metric] === null || entry.metrics[metric] === undefined || [0, 1].includes(entry.value),
  );
}

// One part a seed; the first that changed is open.
function seeds(told, metric, flips) {
  const numbers = [...new Set([...told.a, ...told.b].map((entry) => entry.seed))].sort((x, y) => x - y);
  const at = (side, seed) => side.find((entry) => entry.seed === seed) ?? null;
  const changed = numbers.find((seed) => at(told.a, seed)?.value !== at(told.b, seed)?.value) ?? numbers[0];
  return numbers.map((seed) => {
    const [a, b] = [at(told.a, seed), at(told.b, seed)];
    return h(
      "details",
      { class: "seed", open: seed === changed },
      h(
        "summary",
        {},
        h("span", { class: "seed-name" }, `Seed ${seed}`),
        " ",
        h(
          "span",
          { class: "verdicts" },
          badge("a"),
          " ",
          verdict(a, metric, flips),
          mark(" → ", "to"),
          " ",
          badge("b"),
          " ",
          verdict(b, metric, flips),
        ),
      ),
      choices(told, a, b),
      h("div", { class: "outputs" }, ...outputs(a, b)),
      a?.output && b?.output && a.output !== b.output
        ? h("p", { class: "soft small" }, "Underlined: words that only this side has.")
        : null,
      metrics(a, b),
    );
  });
}

function verdict(entry, metric, flips) {
  if (!entry) return h("span", {}, "no record");
  if (entry.value === null) return h("span", {}, "unknown");
  if (!flips) return h("span", {}, format.score(entry.value, metric));
  const [good, bad] = format.outcome(metric);
  return entry.value === 1
    ? h("span", { class: "right" }, mark("✓", "right"), good)
    : h("span", { class: "wrong" }, mark("✗", "wrong"), bad);
}

// The share of each choice among all, from their log-likelihoods; one that has none has no share.
function shares(scores) {
  const top = Math.max(...scores.filter((s) => s !== null));
  const sizes = scores.map((s) => (s === null ? 0 : Math.exp(s - top)));
  const sum = sizes.reduce((x, y) => x + y, 0);
  return sizes.map((s) => (sum ? s / sum : 0));
}

function choices(told, a, b) {
  const names = told.prompt?.choices ?? [];
  const length = names.length || a?.choice_scores?.length || b?.choice_scores?.length || 0;
  const scores = [a, b].map((entry) =>
    entry?.choice_scores?.length === length ? entry.choice_scores : null,
  );
  if (!scores[0] && !scores[1]) return null;
  const rights = told.prompt?.gold ?? -1;
  const side = (letter, entry, own, i) => {
    if (!own) return h("td", { class: "soft" }, format.DASH, hidden("not scored"));
    const share = shares(own)[i];
    const fill = h("span", { class: `fill ${letter}` });
    fill.style.width = `${100 * share}%`;
    return h(
      "td",
      { class: entry.chosen === i ? "picked" : null },
      h("span", { class: "meter", "aria-hidden": "true" }, fill),
      h(
        "span",
        { class: "nowrap" },
        `${format.percent(share)} % `,
        h("span", { class: "soft" }, format.fixed(own[i], 2)),
      ),
      entry.chosen === i ? h("span", { class: "tag" }, "chosen") : null,
    );
  };
  return h(
    "table",
    { class: "choices" },
    h("caption", { class: "soft small" }, "Choices: share of the likelihood, and log-likelihood in nats"),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("th", { scope: "col" }, "Choice"),
        h("th", { scope: "col" }, badge("a")),
        h("th", { scope: "col" }, badge("b")),
      ),
    ),
    h(
      "tbody",
      {},
      Array.from({ length }, (_, i) =>
        h(
          "tr",
          { class: i === rights ? "gold" : null },
          h(
            "th",
            { scope: "row" },
            data(names[i] ?? `choice ${i + 1}`),
            i === rights ? h("span", { class: "tag gold" }, mark("✓", "right"), "right") : null,
          ),
          side("a", a, scores[0], i),
          side("b", b, scores[1], i),
        ),
      ),
    ),
  );
}

function outputs(a, b) {
  const [left, right] = compareWords(a?.output ?? "", b?.output ?? "");
  const differ = Boolean(a?.output && b?.output) && a.output !== b.output;
  const part = (letter, entry, pieces) => {
    const name = `Output of ${letter.toUpperCase()}`;
    const status = entry
      ? STATUS[entry.status] === undefined
        ? entry.status
        : STATUS[entry.status]
      : "no record";
    return h(
      "div",
      { class: `output ${letter}`, role: "group", "aria-label": name },
      h(
        "h4",
        {},
        badge(letter),
        " output",
        status ? [" ", data(status, { class: "data tag" })] : null,
        entry?.output_tokens
          ? h(
              "span",
              { class: "soft small" },
              ` ${entry.output_tokens} ${entry.output_tokens === 1 ? "token" : "tokens"}`,
            )
          : null,
      ),
      entry?.output
        ? h(
            "div",
            { class: "text", dir: "auto" },
            pieces.map((piece) =>
              piece.own && differ
                ? h("mark", { title: `only in ${letter.toUpperCase()}` }, piece.text)
                : piece.text,
            ),
          )
        : h("p", { class: "soft" }, entry?.output === null ? "not kept" : "nothing"),
    );
  };
  return [part("a", a, left), part("b", b, right)];
}

function metrics(a, b) {
  const names = [...new Set([a, b].flatMap((entry) => Object.keys(entry?.metrics ?? {})))].sort();
  const drawn = [
    ["a", a],
    ["b", b],
  ].filter(([, entry]) => entry?.drawn.length);
  return h(
    "details",
    { class: "more" },
    h("summary", {}, "All scores of this item", drawn.length ? " and drawn answers" : ""),
    h(
      "table",
      {},
      h("caption", { class: "hidden" }, "All scores of this item"),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("th", { scope: "col" }, "Score"),
          h("th", { scope: "col", class: "number" }, badge("a")),
          h("th", { scope: "col", class: "number" }, badge("b")),
        ),
      ),
      h(
        "tbody",
        {},
        names.map((name) =>
          h(
            "tr",
            {},
            h("th", { scope: "row" }, data(format.metricName(name))),
            [a, b].map((entry) => h("td", { class: "number" }, format.fixed(entry?.metrics[name], 3))),
          ),
        ),
      ),
    ),
    drawn.map(([letter, entry]) =>
      h(
        "div",
        {},
        h("h4", {}, badge(letter), " drawn answers"),
        h(
          "ol",
          {},
          entry.drawn.map((one) =>
            h(
              "li",
              {},
              one.value === 1 ? "right: " : one.value === 0 ? "wrong: " : "",
              data(one.output ?? format.DASH),
            ),
          ),
        ),
      ),
    ),
  );
}
