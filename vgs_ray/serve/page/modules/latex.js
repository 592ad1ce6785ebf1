// Texts of models: formulas, boxes and the marks around a thought. Nothing is parsed as HTML.

import { make } from "./dom.js";

// The page's security policy allows scripts to style an element only through its `style` object. Therefore KaTeX builds elements
// here instead of HTML text, and the few styles that it sets as attributes (the width of a vector's arrow) are redirected.
const setAttribute = Element.prototype.setAttribute;
Element.prototype.setAttribute = function (name, value) {
  if (name === "style" && this.style) this.style.cssText = value;
  else setAttribute.call(this, name, value);
};

// As in Pandoc, an opening dollar precedes and a closing dollar follows a non-space, so that amounts of money are not formulas.
const FORMULA = /\$\$([^]+?)\$\$|\\\[([^]+?)\\\]|\\\(([^]+?)\\\)|\$(?=\S)((?:\\[^]|[^$\\\n])+?)(?<=\S)\$(?!\d)/g;
const MARK = /<\/?think>/g;
const END_OF_THOUGHT = "</think>";

function math(latex, display, source) {
  const place = make("span");
  try {
    katex.render(latex, place, { displayMode: display, throwOnError: true, strict: "ignore", maxExpand: 200, maxSize: 20 });
  } catch {
    place.textContent = source;
  }
  return place;
}

export const hasFormula = (text) => text.search(FORMULA) >= 0 || lastBox(text) !== null;

// Nodes for a text with formulas and boxes.
export function rich(text) {
  const parts = [];
  let at = 0;
  for (const match of text.matchAll(FORMULA)) {
    parts.push(...boxed(text.slice(at, match.index)));
    const display = match[1] ?? match[2];
    parts.push(math(display ?? match[3] ?? match[4], display !== undefined, match[0]));
    at = match.index + match[0].length;
  }
  return [...parts, ...boxed(text.slice(at))];
}

// Most answers end with a box outside of any formula.
function boxed(text) {
  const box = lastBox(text);
  if (!box) return text ? [text] : [];
  return [...boxed(text.slice(0, box.start)), math(text.slice(box.start, box.end), false, text.slice(box.start, box.end)), text.slice(box.end)];
}

// As `rich`, for a whole chain: the marks around its thought become words.
export function chain(text) {
  const parts = [];
  let at = 0;
  for (const match of text.matchAll(MARK)) {
    parts.push(...rich(text.slice(at, match.index)));
    if (match[0] === END_OF_THOUGHT) parts.push(make("span", { class: "mark" }, "end of the thought"));
    at = match.index + match[0].length;
  }
  return [...parts, ...rich(text.slice(at))];
}

function lastBox(text) {
  const start = text.lastIndexOf("\\boxed{");
  if (start < 0) return null;
  let depth = 0;
  for (let at = start + 6; at < text.length; at++) {
    if (text[at] === "\\") at++;
    else if (text[at] === "{") depth++;
    else if (text[at] === "}" && --depth === 0) return { start, end: at + 1, inside: text.slice(start + 7, at).trim() };
  }
  return null;
}

// Content of the last box behind the thought.
export const answerOf = (text) => lastBox(text.slice(text.lastIndexOf(END_OF_THOUGHT) + 1))?.inside ?? null;

export const asAnswer = (text) => (/^[^a-z]*$|[\\^_]/i.test(text) ? math(text, false, text) : make("span", {}, text));

// Ranges of a text that are drawn as one: formulas, boxes and marks.
function ranges(text) {
  const found = [FORMULA, MARK].flatMap((pattern) => [...text.matchAll(pattern)].map((match) => [match.index, match.index + match[0].length]));
  for (let box = lastBox(text); box; box = lastBox(text.slice(0, box.start))) found.push([box.start, box.end]);
  return found;
}

// Consecutive tokens that are drawn as one, as [first, last] indices: a formula can't be cut where a token ends.
export function pieces(tokens) {
  const whole = ranges(tokens.join(""));
  const made = [];
  let first = 0, end = 0;
  tokens.forEach((token, last) => {
    end += token.length;
    if (whole.some(([from, to]) => from < end && end < to)) return;
    made.push([first, last]);
    first = last + 1;
  });
  return made;
}
