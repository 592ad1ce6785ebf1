// Numbers and answers as text.

export const number = new Intl.NumberFormat("en");
export const percent = (share) => `${Math.round(100 * share)}%`;
export const likelihood = (probability) => (probability > 0.99 ? "over 99%" : probability < 0.01 ? "under 1%" : percent(probability));  // never certain
export const shown = (value) => (value === null ? "unknown" : value.toFixed(2));
export const colour = (value) => `v${Math.min(Math.floor(value * 10), 9)}`;
export const plain = (latex) => latex.replace(/\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}/g, "$1/$2");
export const many = (count, one, more = `${one}s`) => `${number.format(count)} ${count === 1 ? one : more}`;
export const shortened = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

export function flops(count) {
  if (count === null) return "unknown";
  const power = Math.min(Math.max(Math.floor(Math.log10(count) / 3), 0), 7);
  return `${(count / 1000 ** power).toPrecision(3)} ${["", "K", "M", "G", "T", "P", "E", "Z"][power]}FLOP`;
}

export function seconds(count) {
  return count === null ? "unknown" : `${count.toFixed(count < 1 ? 2 : 1)} s`;
}

export function listed(words) {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}
