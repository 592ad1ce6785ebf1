// What one click starts: a search, or three searches of the same problem that are compared.

import { isRight } from "./equal.js";
import { listed, many, number, plain } from "./format.js";

export const TITLES = { policy: "Plain policy", majority: "Majority vote", guided: "Guided search" };

export class Run {
  // `known` is the known answer or null. `file` names the file from which the run was opened.
  constructor(problem, known, searches, file = null) {
    Object.assign(this, { problem, known, searches, file, active: searches.at(-1), began: new Date() });
  }

  get compares() {
    return this.searches.length > 1;
  }

  get running() {
    return this.searches.some((search) => search.running);
  }

  get state() {
    if (this.running) return "searching";
    return ["failed", "cancelled"].find((state) => this.searches.some((search) => search.state === state)) ?? "done";
  }

  title(search) {
    return this.compares ? TITLES[search.name] : search.name;
  }

  // True, false, or null: unknown.
  right(search) {
    return this.known === null || search.state !== "done" ? null : isRight(search.answer, this.known);
  }

  // How the searches compare, in sentences.
  verdict() {
    const done = this.searches.filter((search) => search.state === "done");
    if (!done.length) return [];
    const names = (searches) => listed(searches.map((search) => `${TITLES[search.name].toLowerCase()}${search.answer === null ? " (no answer)" : ` (${plain(search.answer)})`}`));
    const sentences = this.known === null ? agreement(done, names) : this.judged(done, names);
    return [...sentences, ...this.price(done)];
  }

  judged(done, names) {
    const kinds = [["right", true], ["wrong", false], ["not the known answer as text, so compare it yourself", null]];
    const parts = kinds.map(([word, kind]) => [word, done.filter((search) => this.right(search) === kind)]).filter(([, found]) => found.length);
    return parts.map(([word, found]) => `${capital(names(found))} ${found.length > 1 ? "are" : "is"} ${word}.`);
  }

  price(done) {
    const [policy, guided] = ["policy", "guided"].map((name) => done.find((search) => search.name === name));
    if (!guided) return [];
    const ratio = policy?.generated ? `, ${(guided.generated / policy.generated).toFixed(1)} times as many as the plain policy` : "";
    return [
      `Guided search stopped ${number.format(guided.pruned)} of its ${many(guided.blocks, "block")} because others had higher values, and let ${many(guided.leaves, "finished answer")} vote.`,
      `It generated ${many(guided.generated, "token")}${ratio}.`,
    ];
  }
}

function agreement(done, names) {
  const answers = new Set(done.map((search) => search.answer));
  if (done.length > 1 && answers.size === 1) return [`All ${done.length} give the same answer. Enter the known answer to mark it.`];
  return [`${capital(names(done))}. Enter the known answer to mark right and wrong.`];
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

// How often each method was right in all comparisons of this problem in this tab, or null after one.
export function tally(run, runs) {
  const same = runs.filter((other) => other.compares && other.state === "done" && other.problem === run.problem && other.known === run.known && !other.file);
  if (run.known === null || same.length < 2) return null;
  const counts = Object.keys(TITLES).map((name) => {
    const right = same.filter((other) => other.searches.some((search) => search.name === name && other.right(search))).length;
    return `${TITLES[name].toLowerCase()} ${right}`;
  });
  return `Right in ${same.length} comparisons of this problem: ${listed(counts)}.`;
}
