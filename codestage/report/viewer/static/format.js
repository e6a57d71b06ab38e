// Numbers as people read them. Unknown is a dash, never a nought.

export const DASH = "–";

const known = (value) => value !== null && value !== undefined;

export const count = (value) => (known(value) ? value.toLocaleString("en") : DASH);

export function signed(value, decimals = 1) {
  if (!known(value)) return DASH;
  const shown = Math.abs(value).toFixed(decimals);
  if (Number(shown) === 0) return shown;
  return (value < 0 ? "−" : "+") + shown;
}

export const fixed = (value, decimals) => (known(value) ? value.toFixed(decimals).replace("-", "−") : DASH);

export const percent = (share, decimals = 1) => (known(share) ? (100 * share).toFixed(decimals) : DASH);

export const decimals = (unit) => (unit === "bits" ? 3 : 1);

export const UNITS = { points: "points", bits: "bits per byte" };

export function probability(p) {
  if (!known(p)) return DASH;
  if (p < 0.001) return "< 0.001";
  return p.toFixed(p < 0.1 ? 3 : 2);
}

export function tokens(value) {
  if (!known(value)) return DASH;
  for (const [size, unit] of [
    [1e12, "T"],
    [1e9, "B"],
    [1e6, "M"],
    [1e3, "k"],
  ]) {
    if (value >= size) return (value / size).toFixed(value >= 100 * size ? 0 : 1) + " " + unit;
  }
  return String(value);
}

export function duration(seconds) {
  if (!known(seconds)) return DASH;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} days`;
}

const METRICS = {
  acc: "accuracy",
  acc_norm: "accuracy by character",
  acc_token: "accuracy by token",
  prob: "probability of the right choice",
  bpb: "bits per byte of the right answer",
  format: "readable answers",
  letter_acc: "accuracy by letter",
  sample_acc: "accuracy of drawn answers",
  sc_acc: "accuracy of the majority",
  exact_match: "exact match",
};
export const metricName = (metric) => METRICS[metric] ?? metric;

// What 1 and 0 mean where a score is one of the two.
const OUTCOMES = { format: ["readable", "not readable"], letter_same: ["steady", "not steady"] };
export const outcome = (metric) => OUTCOMES[metric] ?? ["right", "wrong"];

const MODES = { off: "answer alone", supplied: "reasoning supplied", generated: "reasoning generated" };
export const modeName = (cot) => MODES[cot] ?? cot;

// A score in the metric's own way: a share of one, or a number.
export function score(value, metric) {
  if (!known(value)) return DASH;
  return metric === "bpb" ? fixed(value, 3) : fixed(value, 2);
}
