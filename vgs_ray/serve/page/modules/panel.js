// A search on the page: heading, state, tree and overview. In a comparison there are three.

import { make } from "./dom.js";
import { many, plain } from "./format.js";
import { chain } from "./latex.js";
import { Overview } from "./overview.js";
import { Tree } from "./tree.js";

export class Panel {
  constructor(search, title, choose) {
    Object.assign(this, { search, choose, tree: null, overview: null, complete: false });
    this.state = make("span", { class: "about" });
    this.box = make("div", { class: "tree" });
    this.map = make("div", { class: "overview", hidden: "" });
    this.wrote = make("div", { class: "text wrote", tabindex: "0", role: "region", "aria-label": `Text of ${title}`, hidden: "" });
    this.element = make("section", { class: "panel", "aria-label": title, "data-name": search.name },
      make("h3", {}, title), this.state, make("div", { class: "tree-row" }, this.box, this.map), this.wrote);
  }

  // Draws up to `most` blocks that have arrived.
  update(most) {
    const { search } = this;
    if (search.start && !this.tree) this.begin();
    const batch = search.take(most);
    if (batch.length) { this.tree.add(batch); this.overview.add(batch); }
    this.state.textContent = describe(search);
    if (search.running || search.arrived.length || this.complete) return;
    this.complete = true;
    this.tree?.showChosen();
    this.tell();
  }

  begin() {
    this.tree = new Tree(this.search, this.box, (node, focus) => this.choose(this, node, focus));
    this.overview = new Overview(this.tree, this.map);
  }

  // A search of one block has room for its text.
  tell() {
    const only = this.search.nodes.find((node) => node?.id);
    if (!only || this.search.groups > 1 || this.search.blocks > 1) return;
    this.wrote.replaceChildren(...chain(only.text.trim()));
    this.wrote.hidden = false;
  }

  // Draws a tree that is already complete again.
  redraw() {
    if (!this.search.start) return;
    this.begin();
    const nodes = this.search.nodes.filter((node) => node?.id);
    if (nodes.length) { this.tree.add(nodes); this.overview.add(nodes); }
    this.update(Infinity);
  }
}

function describe(search) {
  const grown = `${many(search.blocks, "block")}, ${many(search.leaves, "answer")}`;
  if (search.state === "started") return "Sent";
  if (search.state === "queued") return `Waiting: position ${search.start.queue_position} in the queue`;
  if (search.state === "failed") return `Failed: ${search.error?.message ?? "no answer"}`;
  if (search.state === "cancelled") return `Cancelled after ${grown}`;
  if (search.state === "done") return search.answer === null ? `No answer; ${grown}` : `${plain(search.answer)} from ${grown}`;
  return grown;
}
