// One search: its request, its blocks, its vote and its cost. No element of the page.

import { call, events, Refused } from "./api.js";
import { answerOf } from "./latex.js";

export class Search {
  // `name` is "policy", "majority" or "guided" in a comparison, otherwise the model's name.
  constructor(name, body) {
    Object.assign(this, {
      name, body, state: "started", error: null,  // then queued, growing, and done, failed or cancelled
      start: null, nodes: [{ id: 0, round: -1, group: -1 }], cells: new Map(), arrived: [], blocks: 0, pruned: 0,
      tokens: 0, leaves: 0, votes: new Map(), content: "", thought: "", reply: null, usage: null,
      firstBlock: null, began: performance.now(), ended: null, abort: new AbortController(),
    });
  }

  // Sends the request. Calls `changed` after each event and at the end; never raises.
  async run(changed) {
    try {
      for await (const [event, data] of events(await call("v1/chat/completions", this.body, this.abort.signal))) {
        this.hear(event, data);
        changed();
      }
      this.state = "done";
    } catch (error) {
      this.error = error.name === "AbortError" ? null : error;
      this.state = this.error ? "failed" : "cancelled";
    }
    this.ended = performance.now();
    changed();
  }

  hear(event, data) {
    if (data.error) throw new Refused(data.error.message);
    if (event === "vgs_ray.start") {
      this.start = data;
      this.state = data.queue_position > 0 ? "queued" : "growing";
    } else if (event === "vgs_ray.node") {
      this.state = "growing";
      this.firstBlock ??= data.seconds;
      this.arrived.push({ ...data, id: Number(data.id), parent: Number(data.parent), scores: null });
    } else if (!event) {
      const delta = data.choices[0]?.delta ?? {};
      this.content += delta.content ?? "";
      this.thought += delta.reasoning_content ?? "";
      this.reply = data.vgs_ray ?? this.reply;
      this.usage = data.usage ?? this.usage;
    }
  }

  // Moves up to `most` blocks that have arrived into the tree, and returns them.
  take(most) {
    if (!this.start) return [];
    const batch = this.arrived.splice(0, most);
    for (const node of batch) {
      this.nodes[node.id] = node;
      this.cells.set(cell(node), node);
      this.blocks++;
      this.tokens += node.tokens;
      if (node.state === "pruned") this.pruned++;
      if (node.state === "finished") this.count(node);
    }
    return batch;
  }

  count(node) {
    this.leaves++;
    node.answer = answerOf(this.text(node));
    if (node.answer === null) return;
    const vote = this.votes.get(node.answer) ?? { answer: node.answer, weight: 0, leaves: 0 };
    const value = node.value ?? 0, rule = this.start.search.select;
    vote.weight = rule === "best" ? Math.max(vote.weight, value) : vote.weight + (rule === "majority" ? 1 : value);
    vote.leaves++;
    this.votes.set(node.answer, vote);
  }

  // The server's vote where it has come, otherwise the browser's count so far; the winner first.
  ranking() {
    return this.reply ? this.reply.votes : [...this.votes.values()].sort((one, other) => other.weight - one.weight);
  }

  get answer() {
    return this.reply?.answer ?? null;
  }

  get running() {
    return this.ended === null;
  }

  // Without the queue once the server has said it.
  get seconds() {
    return this.reply?.seconds ?? ((this.ended ?? performance.now()) - this.began) / 1000;
  }

  get generated() {
    return this.usage?.completion_tokens ?? this.tokens;
  }

  // Candidates in each round of a group, and the number of groups.
  get lanes() {
    const { method, keep, branch } = this.start.search;
    return method === "beam" ? keep * branch : 1;
  }

  get groups() {
    const { method, groups, budget } = this.start.search;
    return method === "beam" ? groups : budget;
  }

  get rounds() {
    const { method, max_tokens, block } = this.start.search;
    return method === "beam" ? Math.ceil(max_tokens / block) : 1;
  }

  path(node) {
    const nodes = [];
    for (let at = node; at?.id; at = this.nodes[at.parent]) nodes.unshift(at);
    return nodes;
  }

  text(node) {
    return this.path(node).map((at) => at.text).join("");
  }

  children(node) {
    return this.nodes.filter((other) => other.id && other.parent === node.id);
  }

  get chosen() {
    return this.reply ? this.nodes[Number(this.reply.node)] : undefined;
  }
}

export const cell = (node, ahead = 0) => `${node.group},${node.round + ahead},${node.index}`;
