// Making elements. Text from data only ever becomes a text node: nothing here reads markup.

export function h(tag, props = {}, ...kids) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in CALLED) element[CALLED[name]] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...kids.flat(9).filter((kid) => kid !== null && kid !== undefined && kid !== false));
  return element;
}

const CALLED = { value: "value", checked: "checked", selected: "selected" };

// A name or text from data: kept apart, so that its direction of writing turns nothing around it.
export const data = (text, props = {}) => h("bdi", { class: "data", ...props }, String(text));

export const hidden = (text) => h("span", { class: "hidden" }, text);

// What carries no meaning of its own: the same is said in words beside it.
export const mark = (sign, kind) => h("span", { class: `mark ${kind}`, "aria-hidden": "true" }, sign);

export const badge = (letter) => h("span", { class: `side-badge ${letter}` }, letter.toUpperCase());

// Text for screen readers only, said once.
export function say(text) {
  const place = document.getElementById("said");
  if (place.textContent !== text) place.textContent = text;
}

export function select(label, choices, value, onchange, { id }) {
  const options = choices.map((c) => h("option", { value: c.value, selected: c.value === value }, c.label));
  return h(
    "div",
    { class: "field" },
    h("label", { for: id }, label),
    h("select", { id, onchange: (event) => onchange(event.target.value) }, options),
  );
}

// A group of radio buttons that looks like one control.
export function segmented(label, name, choices, value, onchange) {
  return h(
    "fieldset",
    { class: "segmented" },
    h("legend", {}, label),
    h(
      "div",
      { class: "segments" },
      choices.map((choice) =>
        h(
          "label",
          {},
          h("input", {
            type: "radio",
            id: `${name}-${choice.value}`,
            name,
            value: choice.value,
            checked: choice.value === value,
            onchange: () => onchange(choice.value),
          }),
          h("span", {}, choice.sign ? mark(choice.sign, choice.value) : null, choice.label),
        ),
      ),
    ),
  );
}

// Puts new content into a place; what had the focus there, by its id, has it again.
export function fill(place, ...kids) {
  const focus = place.contains(document.activeElement) ? document.activeElement.id : null;
  place.replaceChildren(...kids.flat(9).filter((kid) => kid !== null && kid !== undefined && kid !== false));
  if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
}

export function problem(error) {
  return h(
    "div",
    { class: "problem", role: "alert" },
    h("strong", {}, "This cannot be shown. "),
    data(error.message),
  );
}

// A table that scrolls by itself where it is too wide for the page. One without links is a stop of its
// own, so that keys can scroll it.
export function wide(label, table) {
  const stop = table.querySelector("a, button")
    ? {}
    : { tabindex: "0", id: `scroll-${label.replaceAll(" ", "-")}` };
  return h("div", { class: "scroll", role: "region", "aria-label": label, ...stop }, table);
}
