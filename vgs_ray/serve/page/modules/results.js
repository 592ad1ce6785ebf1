// The cards about a run besides its trees: cost, comparison, answer, vote and the way to the answer.

import { $, button, make } from "./dom.js";
import { flops, likelihood, many, number, percent, plain, seconds, shortened, shown } from "./format.js";
import { asAnswer, chain, rich } from "./latex.js";
import { tally, TITLES } from "./run.js";

const RULES = { weighted_majority: "Each vote is weighted by its value", majority: "Each answer has one vote", best: "The answer with the highest value wins" };
const rows = new WeakMap();  // rows of the vote by search and answer: formulas are set once

export function costs(search) {
  const made = { Blocks: number.format(search.blocks), Answers: number.format(search.leaves), Generated: `${number.format(search.generated)} tokens` };
  if (search.reply) {
    made.Scored = `${number.format(search.reply.usage.scored)} tokens`;
    made["From cache"] = `${number.format(search.reply.usage.cached)} tokens`;
    if (search.reply.flops !== null) made.Compute = flops(search.reply.flops);
  }
  if (search.firstBlock !== null) made["First block"] = seconds(search.firstBlock);
  made.Time = seconds(search.seconds);
  if (search.reply) made.Seed = String(search.reply.seed);
  return made;
}

export function showCosts(run) {
  $("cost").hidden = run.compares;
  $("comparison").hidden = !run.compares;
  if (run.compares) return compare(run);
  $("cost").replaceChildren(...terms(costs(run.active)));
}

const terms = (found) => Object.entries(found).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)));

function compare(run) {
  $("compared").replaceChildren(...run.searches.map((search) => {
    const { Generated, Scored = "", Compute = "", Time, "First block": first = "" } = costs(search);
    const cells = { Answer: plain(search.answer ?? (search.running ? "" : "none")), Result: result(run, search), Answers: number.format(search.leaves), Generated, Scored, Compute, "First block": first, Time };
    return make("tr", { role: "row" }, make("th", { role: "rowheader", scope: "row" }, TITLES[search.name]),
      ...Object.entries(cells).map(([name, value]) => make("td", { role: "cell", "data-name": name }, value)));
  }));
}

function result(run, search) {
  if (search.running) return search.state === "queued" ? "waits" : "grows";
  if (search.state !== "done") return search.state;
  return badge(run.right(search), run.known) ?? "";
}

// Whether the answer is the known one, as an element; null without a known answer.
export function badge(right, known) {
  if (known === null) return null;
  const [name, words] = { true: ["right", "✓ right"], false: ["wrong", "✗ wrong"], null: ["open", "? other text"] }[right];
  return make("span", { class: `badge ${name}` }, words);
}

export function showVerdict(run, runs) {
  $("verdict").hidden = !run.compares || run.running;
  const sentences = run.compares ? [...run.verdict(), tally(run, runs)].filter(Boolean) : [];
  $("verdict").replaceChildren(...sentences.map((sentence) => make("p", {}, sentence)));
}

export function showVote(search) {
  const votes = search.ranking();
  const total = votes.reduce((sum, vote) => sum + vote.weight, 0) || 1;
  $("vote-title").textContent = search.reply ? "Vote" : "Vote so far";
  $("vote-about").textContent = votes.length ? `${RULES[search.start.search.select]}.` : search.running ? "No answer is finished yet." : "No answer was finished.";
  if (!rows.has(search)) rows.set(search, new Map());
  $("votes").replaceChildren(...votes.slice(0, 8).map((vote) => row(rows.get(search), vote, total, search.start.search.select)));
}

function row(made, vote, total, rule) {
  if (!made.has(vote.answer)) {
    made.set(vote.answer, make("li", {}, make("span", { class: "answer" }, asAnswer(vote.answer)), make("span", { class: "weight" }), make("div", { class: "bar", "aria-hidden": "true" }, make("i"))));
  }
  const item = made.get(vote.answer), answers = many(vote.leaves, "answer");
  item.children[1].textContent = rule === "majority" ? answers : `${vote.weight.toFixed(2)} from ${answers}`;
  item.querySelector("i").style.width = `${(100 * vote.weight) / total}%`;
  return item;
}

export function showAnswer(run) {
  const search = run.active, { reply } = search;
  $("answer-card").hidden = !reply;
  if (!reply) return;
  $("answer-title").textContent = run.compares ? `Answer: ${TITLES[search.name].toLowerCase()}` : "Answer";
  $("answer").replaceChildren(reply.answer === null ? "No answer" : asAnswer(reply.answer));
  const mark = badge(run.right(search), run.known);
  if (mark) $("answer").append(mark);
  $("answer-about").replaceChildren(...terms(rating(reply)));
  $("warnings").replaceChildren(...reply.warnings.map((words) => make("li", {}, words)));
  $("said").hidden = !search.content;
  $("said").replaceChildren(...rich(search.content));
  $("thought").hidden = $("copy-thought").hidden = !search.thought;
  $("copy-answer").hidden = reply.answer === null;
  $("thought").open = false;
}

function rating({ answer, probability, share, undecided, value, decided_after }) {
  const found = {};
  if (answer !== null) {
    found.Probability = probability === null ? "no calibrated probability" : `${likelihood(probability)}, calibrated by the evaluation`;
    if (share !== null) found["Share of the vote"] = `${percent(share)}${undecided ? ", almost tied with another answer" : ""}`;
  }
  found.Value = `${shown(value)}, not calibrated`;
  if (decided_after !== null) found["Decided after"] = String(decided_after);
  return found;
}

// The blocks on the path to the answer, each with what it was preferred to. `select(node)` shows one.
export function showWay(search, select) {
  const path = search.path(search.chosen);
  $("way-card").hidden = path.length < 2;
  $("way").replaceChildren(...path.map((node, at) => {
    const continues = at && !path[at - 1].text.endsWith("\n") && !node.text.startsWith("\n");  // blocks may end within a word
    const others = search.children(search.nodes[node.parent]).filter((other) => other !== node && other.group === node.group);
    return make("li", {},
      button(`Block ${node.round + 1}: value ${shown(node.value)}`, () => select(node), { class: "link" }),
      make("span", { class: "about" }, preferred(others)), make("div", { class: "text" }, continues ? "…" : "", ...chain(node.text.trim())));
  }));
}

function preferred(others) {
  const dropped = others.filter((other) => other.state === "pruned" && other.value !== null);
  if (!dropped.length) return "";
  const values = dropped.slice(0, 4).map((other) => shown(other.value)).join(", ");
  return ` kept; stopped beside it: ${values}${dropped.length > 4 ? ", …" : ""}`;
}

export const summary = (run) => `${shortened(run.problem.replaceAll("\n", " "), 70)}`;
