// What is shown stands in the address after #, so that a view can be linked and gone back to.

export function read() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

export function address(state) {
  const known = Object.entries(state).filter(
    ([, value]) => value !== null && value !== undefined && value !== "",
  );
  return "#" + new URLSearchParams(known);
}

// Changes some of it. `replace`: a step that Back should not stop at.
export function go(changes, { replace = false, fresh = false } = {}) {
  const next = address(fresh ? changes : { ...read(), ...changes });
  if (next === location.hash) return;
  if (replace) {
    history.replaceState(null, "", next);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = next;
  }
}

// Into the address only, for what the page shows already: drawn anew between a press of the button and
// its release, what was pressed would be gone and the click with it.
export function note(changes) {
  history.replaceState(null, "", address({ ...read(), ...changes }));
}
