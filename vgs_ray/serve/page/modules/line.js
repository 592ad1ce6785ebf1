// Values along a path as a line: after each token where they are known, otherwise after each block.

import { draw, make } from "./dom.js";
import { shown } from "./format.js";

const WIDE = 600, HIGH = 96;

// `path` are nodes; the last one is marked. `at` is the index of a token of the last one, or null.
export function drawLine(place, path, at = null) {
  place.replaceChildren();
  const total = path.reduce((sum, node) => sum + node.tokens, 0);
  place.hidden = total < 2;
  if (place.hidden) return;
  const x = (token) => (token / total) * WIDE, y = (value) => HIGH - value * HIGH;
  const values = path.map((node) => shown(node.value)).join(", ");
  const svg = draw("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img", "aria-label": `Values along the path, after each block: ${values}` }, place);
  const own = path.at(-1);
  draw("rect", { class: "own", x: x(total - own.tokens), y: 0, width: x(own.tokens), height: HIGH }, svg);
  for (const value of [0, 0.5, 1]) draw("path", { class: "rule", d: `M0 ${y(value)}H${WIDE}` }, svg);
  draw("path", { class: "values", d: points(path).map(([token, value], index) => `${index ? "L" : "M"}${x(token)} ${y(value)}`).join("") }, svg);
  if (at !== null) draw("path", { class: "cursor", d: `M${x(total - own.tokens + at + 1)} 0V${HIGH}` }, svg);
  place.append(...[["top", "1"], ["middle", "0.5"], ["bottom", "0"]].map(([side, words]) => make("span", { class: side, "aria-hidden": "true" }, words)));
  let end = 0;
  for (const node of path) {  // lines of no length with round ends: circles that the stretched picture does not distort
    end += node.tokens;
    if (node.value !== null) draw("path", { class: node === own ? "dot chosen" : "dot", d: `M${x(end)} ${y(node.value)}h0` }, svg);
  }
}

function points(path) {
  const made = [];
  let before = 0;
  for (const node of path) {
    if (node.scores) node.scores.values.forEach((value, at) => { if (value !== null) made.push([before + at + 1, value]); });
    else if (node.value !== null) made.push([before + node.tokens, node.value]);
    before += node.tokens;
  }
  return made;
}
