// The selected block: its text after that of its path, and the value after each of its tokens.

import { call } from "./api.js";
import { $, make } from "./dom.js";
import { colour, many, number, shown } from "./format.js";
import { chain, pieces } from "./latex.js";
import { drawLine } from "./line.js";
import { label } from "./tree.js";

const TABLE_ROWS = 2000;
let current = null;  // {run, search, node, own, at}
let waiting, scoring;

export function clearBlock() {
  stop();
  current = null;
  for (const id of ["text", "line", "token-value", "token-table", "text-keys"]) $(id).hidden = true;
  $("node-about").textContent = "Select a block of the tree to read its text. The left and right arrow keys move along a beam, up and down between beams.";
  $("node-scores").textContent = "";
}

export function showBlock(run, search, node) {
  stop();
  const words = label(node);
  $("node-about").textContent = `${run.compares ? `${run.title(search)}: ` : ""}${run.compares ? words : words[0].toUpperCase() + words.slice(1)}; ${many(node.tokens, "token")}.`;
  const path = search.path(node);
  const own = make("span", {}, ...chain(node.text));
  $("text").replaceChildren(make("span", { class: "before" }, ...chain(path.slice(0, -1).map((at) => at.text).join("").trimStart())), own);
  $("text").hidden = false;
  $("token-value").hidden = $("token-table").hidden = $("text-keys").hidden = true;
  $("text").scrollTop = Math.max(own.offsetTop - $("text").offsetTop - 60, 0);
  current = { run, search, node, own, path, at: null };
  drawLine($("line"), path);
  if (node.scores) return shade();
  $("node-scores").textContent = run.file ? "The file has no values for the tokens of this block." : "";
  if (node.tokens && !run.file) waiting = setTimeout(score, 250);  // not while the arrow keys move on
}

function stop() {
  clearTimeout(waiting);
  scoring?.abort();
}

// One pass gives the values of the whole path. Those of a block do not depend on what follows.
async function score() {
  const { search, node, path } = current;
  const known = path.findIndex((at) => !at.scores), rest = path.slice(known);
  const ids = [...search.start.prompt_token_ids, ...path.flatMap((at) => at.token_ids)];
  const from = ids.length - rest.reduce((sum, at) => sum + at.tokens, 0);
  scoring = new AbortController();
  $("node-scores").textContent = "Requesting the value of each token";
  try {
    const body = { model: search.body.model, input: [ids], every_token: true, from_token: from, return_text: true };
    const [found] = (await (await call("v1/score", body, scoring.signal)).json()).data;
    let start = 0;
    for (const at of rest) {
      at.scores = { values: found.values.slice(start, start + at.tokens), tokens: found.tokens.slice(start, start + at.tokens) };
      start += at.tokens;
    }
    if (current?.node === node) shade();
  } catch (error) {
    if (error.name !== "AbortError") $("node-scores").textContent = `No values for its tokens: ${error.message}`;
  }
}

function shade() {
  const { node, own, path } = current, { values, tokens } = node.scores;
  current.pieces = pieces(tokens);
  own.replaceChildren(...current.pieces.map(([first, last]) => {
    const value = values[last];
    return make("span", value === null ? {} : { class: `token ${colour(value)}`, title: shown(value) }, ...chain(tokens.slice(first, last + 1).join("")));
  }));
  current.pieces.forEach(([, last], at) => own.children[at].addEventListener("click", () => move(at)));
  $("node-scores").textContent = described(values, tokens);
  $("text-keys").hidden = false;
  $("token-table").hidden = false;
  if ($("token-table").open) table();
  drawLine($("line"), path);
}

function described(values, tokens) {
  const known = values.filter((value) => value !== null);
  if (!known.length) return "";
  const steps = values.map((value, at) => (at && value !== null && values[at - 1] !== null ? value - values[at - 1] : 0));
  const fall = Math.min(...steps), at = steps.indexOf(fall);
  const most = fall < -0.1 ? ` Largest fall: ${shown(-fall)} at “${tokens[at].trim()}”.` : "";
  return `Shaded by the value after each token: ${shown(known[0])} after the first, ${shown(known.at(-1))} after the last.${most}`;
}

// Moves to a piece of the text and tells its value.
function move(at) {
  const { own, pieces: all, node, path } = current, { values, tokens } = node.scores;
  own.querySelector(".at")?.classList.remove("at");
  own.children[at].classList.add("at");
  if (at !== current.at) own.children[at].scrollIntoView({ block: "nearest" });
  current.at = at;
  const [first, last] = all[at], before = first ? values[first - 1] : null, value = values[last];
  const change = before === null || value === null ? "" : `, ${shown(Math.abs(value - before))} ${value < before ? "lower" : "higher"} than before it`;
  const which = first === last ? `Token ${first + 1}` : `Tokens ${first + 1} to ${last + 1}`;
  $("token-value").textContent = `${which} of ${tokens.length}, “${tokens.slice(first, last + 1).join("").trim()}”: value ${shown(value)}${change}`;
  $("token-value").hidden = false;
  drawLine($("line"), path, last);
}

function table() {
  const { values, tokens } = current.node.scores;
  const rows = tokens.slice(0, TABLE_ROWS).map((token, at) => make("tr", {}, make("td", {}, String(at + 1)), make("td", {}, token), make("td", {}, shown(values[at]))));
  $("token-rows").replaceChildren(...rows);
  $("token-more").textContent = tokens.length > TABLE_ROWS ? `The first ${number.format(TABLE_ROWS)} of ${number.format(tokens.length)} tokens.` : "";
}

$("token-table").addEventListener("toggle", () => { if ($("token-table").open && current?.node.scores) table(); });
$("text").addEventListener("keydown", (event) => {
  if (!current?.pieces || !current.node.scores || event.ctrlKey || event.metaKey || event.altKey) return;
  const last = current.pieces.length - 1, at = current.at;
  const to = { ArrowRight: at === null ? 0 : at + 1, ArrowLeft: at === null ? last : at - 1, Home: 0, End: last }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  move(Math.min(Math.max(to, 0), last));
});
