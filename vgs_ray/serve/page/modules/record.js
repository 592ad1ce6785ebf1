// A finished run as a file, and back. A file is not trusted: it is read field by field into new objects, and sizes are bounded.

import { Refused } from "./api.js";
import { Run, TITLES } from "./run.js";
import { Search, cell } from "./search.js";
import { WORDS } from "./tree.js";

const FORMAT = "vgs_ray search tree", VERSION = 1;
export const LARGEST_FILE = 32 * 2 ** 20;  // bytes
const MOST = { searches: 3, nodes: 50_000, cells: 65_536, rounds: 65_536, tokens: 1_000_000, characters: 4_000_000, votes: 4096 };

export function toRecord(run) {
  const searches = run.searches.map((search) => ({
    name: search.name, state: search.state, model: search.body.model, search: search.start.search, first_block_s: search.firstBlock, seconds: search.seconds,
    content: search.content, thought: search.thought, reply: search.reply, completion_tokens: search.generated,
    nodes: search.nodes.filter((node) => node?.id).map(({ token_ids, answer, seconds, ...node }) => node),
  }));
  return { format: FORMAT, version: VERSION, saved_at: new Date().toISOString(), problem: run.problem, known_answer: run.known, searches };
}

// Raises `Refused` with the field, its value and the rule.
export function fromRecord(text, file) {
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    throw new Refused(`${file} is not JSON. Open a file that this page has saved.`);
  }
  if (found?.format !== FORMAT) throw new Refused(`${file} has the format ${short(found?.format)}. Open a file that this page has saved (${FORMAT}).`);
  if (found.version !== VERSION) throw new Refused(`${file} has version ${short(found.version)}; this page reads version ${VERSION}. Open it on the page that saved it.`);
  const searches = list(found.searches, "searches", MOST.searches).map(readSearch);
  const names = searches.map((search) => search.name).join();
  if (searches.length !== 1 && names !== Object.keys(TITLES).join()) throw new Refused(`searches are ${short(names)}; a file has one search, or ${Object.keys(TITLES).join()}.`);
  return new Run(string(found.problem, "problem"), nullable(string)(found.known_answer, "known_answer"), searches, file);
}

function readSearch(found) {
  const model = string(found?.model, "model");
  const search = new Search(string(found.name, "name"), { model });
  search.start = readStart(found.search);
  if (search.groups * search.lanes > MOST.cells) throw new Refused(`the tree has ${search.groups} groups of ${search.lanes}; this page draws at most ${MOST.cells} in all.`);
  search.arrived = list(found.nodes, "nodes", MOST.nodes).map((node) => readNode(node, search));
  checkTree(search);
  search.firstBlock = nullable(real)(found.first_block_s, "first_block_s");
  search.content = string(found.content, "content");
  search.thought = string(found.thought, "thought");
  search.usage = { completion_tokens: whole(found.completion_tokens, "completion_tokens") };
  search.reply = nullable(readReply)(found.reply, "reply");
  search.state = oneOf(["done", "failed", "cancelled"])(found.state, "state");
  search.began = 0;
  search.ended = 1000 * real(found.seconds, "seconds");
  search.take(Infinity);
  return search;
}

function readStart(search) {
  const beam = oneOf(["beam", "sample"])(search?.method, "method") === "beam";
  const sizes = beam ? ["keep", "branch", "block", "groups"] : [];
  return {
    queue_position: 0,
    search: {
      method: search.method, select: oneOf(["weighted_majority", "majority", "best"])(search.select, "select"),
      ...Object.fromEntries(["budget", "max_tokens", ...sizes].map((name) => [name, whole(search[name], name, 1)])),
    },
  };
}

function readNode(found, search) {
  const node = {
    id: whole(found?.id, "id", 1, MOST.nodes), parent: whole(found.parent, "parent", 0, MOST.nodes),
    group: whole(found.group, "group", 0, search.groups - 1), round: whole(found.round, "round", 0, MOST.rounds), index: whole(found.index, "index", 0, search.lanes - 1),
    value: nullable(share)(found.value, "value"), state: oneOf(Object.keys(WORDS))(found.state, "state"),
    tokens: whole(found.tokens, "tokens"), text: string(found.text, "text"), scores: null,
  };
  if (found.scores != null) {
    node.scores = {
      values: list(found.scores.values, "values", MOST.tokens).map((value) => nullable(share)(value, "values")),
      tokens: list(found.scores.tokens, "tokens", MOST.tokens).map((token) => string(token, "tokens")),
    };
    if (node.scores.values.length !== node.scores.tokens.length) throw new Refused(`block ${node.id} has ${node.scores.values.length} values for ${node.scores.tokens.length} tokens; it needs one for each.`);
  }
  return node;
}

// Ids and cells are distinct, and a parent stands before its children, one round earlier in the same group.
function checkTree(search) {
  const known = new Map([[0, { round: -1 }]]), cells = new Set();
  for (const node of search.arrived) {
    const parent = known.get(node.parent);
    const fits = parent && !known.has(node.id) && !cells.has(cell(node)) && parent.round < node.round && (node.parent === 0 || parent.group === node.group);
    if (!fits) throw new Refused(`block ${node.id} of ${search.name} does not fit into the tree: its parent is ${node.parent}, its place ${cell(node)}.`);
    known.set(node.id, node);
    cells.add(cell(node));
  }
}

function readReply(found) {
  return {
    answer: nullable(string)(found.answer, "answer"), value: nullable(share)(found.value, "value"), share: nullable(share)(found.share, "share"),
    probability: nullable(share)(found.probability, "probability"), undecided: found.undecided === true, node: String(whole(Number(found.node), "node")),
    votes: list(found.votes, "votes", MOST.votes).map((vote) => ({ answer: string(vote?.answer, "answer"), weight: real(vote.weight, "weight"), leaves: whole(vote.leaves, "leaves") })),
    usage: { scored: whole(found.usage?.scored, "scored"), cached: whole(found.usage.cached, "cached") },
    flops: nullable(real)(found.flops, "flops"), seed: whole(found.seed, "seed", -Number.MAX_SAFE_INTEGER), seconds: real(found.seconds, "seconds"),
    warnings: list(found.warnings, "warnings", 100).map((words) => string(words, "warnings")), decided_after: nullable(whole)(found.decided_after, "decided_after"),
  };
}

// ---- one value each ----

const short = (value) => String(JSON.stringify(value)).slice(0, 60);
const fault = (value, name, rule) => new Refused(`${name} is ${short(value)}; it has to be ${rule}. The file is damaged or was not saved by this page.`);
const nullable = (read) => (value, name) => (value == null ? null : read(value, name));

function string(value, name) {
  if (typeof value !== "string" || value.length > MOST.characters) throw fault(value, name, `text of at most ${MOST.characters} characters`);
  return value;
}

function whole(value, name, least = 0, most = Number.MAX_SAFE_INTEGER) {
  if (!Number.isSafeInteger(value) || value < least || value > most) throw fault(value, name, `an integer from ${least} to ${most}`);
  return value;
}

function real(value, name) {
  if (!Number.isFinite(value) || value < 0) throw fault(value, name, "a number from 0 on");
  return value;
}

function share(value, name) {
  if (!Number.isFinite(value) || value < 0 || value > 1) throw fault(value, name, "a number from 0 to 1");
  return value;
}

const oneOf = (known) => (value, name) => {
  if (!known.includes(value)) throw fault(value, name, `one of ${known.join(", ")}`);
  return value;
};

function list(value, name, most) {
  if (!Array.isArray(value) || value.length > most) throw fault(value, name, `a list of at most ${most}`);
  return value;
}
