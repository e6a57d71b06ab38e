// Which words two texts do not share: a longest common subsequence of words.

const MOST = 1500;

const words = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];

// Pieces of each side in order: {text, own}, `own` where the other side lacks the words.
export function compareWords(left, right) {
  const [a, b] = [words(left), words(right)];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end])
    end++;
  const inner = [a.slice(start, a.length - end), b.slice(start, b.length - end)];
  const [ownA, ownB] =
    inner[0].length > MOST || inner[1].length > MOST
      ? inner.map((side) => side.map(() => true)) // too long to match word by word: all of it differs
      : unmatched(...inner);
  const pieces = (side, own) =>
    joined([
      ...side.slice(0, start).map((text) => ({ text, own: false })),
      ...side.slice(start, side.length - end).map((text, i) => ({ text, own: own[i] })),
      ...side.slice(side.length - end).map((text) => ({ text, own: false })),
    ]);
  return [pieces(a, ownA), pieces(b, ownB)];
}

function unmatched(a, b) {
  const wide = b.length + 1;
  const longest = new Uint16Array((a.length + 1) * wide);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      longest[i * wide + j] =
        a[i] === b[j]
          ? 1 + longest[(i + 1) * wide + j + 1]
          : Math.max(longest[(i + 1) * wide + j], longest[i * wide + j + 1]);
    }
  }
  const own = [a.map(() => true), b.map(() => true)];
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) own[0][i++] = own[1][j++] = false;
    else if (longest[(i + 1) * wide + j] >= longest[i * wide + j + 1]) i++;
    else j++;
  }
  return own;
}

function joined(pieces) {
  const runs = [];
  for (const piece of pieces) {
    if (runs.length && runs.at(-1).own === piece.own) runs.at(-1).text += piece.text;
    else runs.push({ ...piece });
  }
  return runs;
}
