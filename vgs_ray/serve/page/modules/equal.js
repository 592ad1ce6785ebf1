// Compares an answer with a known one. Numbers and fractions are compared exactly, other answers as text.

const tidy = (text) => text.trim().replace(/^\$+|\$+$|\.$/g, "").replace(/^\\boxed\{(.*)\}$/, "$1").replace(/\\[dt]frac/g, "\\frac")
  .replace(/\\left|\\right|\\[,!;:]|\s|\{,\}/g, "").replace(/(?<=\d),(?=\d{3}(?:\D|$))/g, "");

// [numerator, denominator] of a number, otherwise null.
function rational(text) {
  if (text.length > 60) return null;
  const whole = text.match(/^(-?)(\d*)(?:\.(\d+))?$/);
  if (whole && (whole[2] || whole[3])) return [BigInt(`${whole[1]}${whole[2]}${whole[3] ?? ""}`), 10n ** BigInt(whole[3]?.length ?? 0)];
  const parts = text.match(/^(-?)\\frac\{?(-?\d+?)\}?\{?(\d+)\}?$/) ?? text.match(/^(-?)(\d+)\/(\d+)$/);
  return parts && BigInt(parts[3]) ? [BigInt(parts[2]) * (parts[1] ? -1n : 1n), BigInt(parts[3])] : null;
}

// True, false, or null if the texts differ and one of them is no number: then only a reader can tell.
export function isRight(answer, known) {
  if (answer === null) return false;
  const one = tidy(answer), other = tidy(known);
  if (one === other) return true;
  const [a, b] = [rational(one), rational(other)];
  return a && b ? a[0] * b[1] === b[0] * a[1] : null;
}
