// Draws the tree of one search. A node's position depends only on (group, round, index), so drawn nodes never move.

import { draw } from "./dom.js";
import { colour, plain, shortened, shown } from "./format.js";
import { cell } from "./search.js";

const LANE = 24, GAP = 10, LEFT = 38, RIGHT = 78;  // pixels: height of a candidate, space between groups and at both sides
const KEYS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "Enter", " "];
export const SHAPES = {
  kept: "M-6 0a6 6 0 1 0 12 0a6 6 0 1 0-12 0z", pruned: "M-4-4L4 4M4-4L-4 4",
  finished: "M0-9L9 0L0 9L-9 0z", length: "M-6-6h12v12h-12z",
};
export const WORDS = { kept: "kept", pruned: "pruned", finished: "finished", length: "cut off" };

export const label = (node) => `block ${node.round + 1} of group ${node.group + 1}, value ${shown(node.value)}, ${WORDS[node.state]}`;

export class Tree {
  // `choose(node, focus)` is called when a person selects a node.
  constructor(search, box, choose) {
    Object.assign(this, { search, box, choose, marks: new Map(), names: new Map(), selected: null, widest: 0 });
    const rounds = Math.min(search.rounds, 6);  // longer searches scroll
    this.step = Math.min(Math.max(Math.floor((box.clientWidth - LEFT - RIGHT) / rounds), 40), 104);
    this.band = search.lanes * LANE;
    this.height = search.groups * (this.band + GAP) - GAP;
    this.svg = draw("svg", { role: "tree", "aria-label": "Search tree", height: this.height, width: "100%" }, box);
    this.bands = [];
    for (let group = 0; group < search.groups; group++) {
      const top = this.top(group);
      this.bands.push(draw("rect", { class: "band", x: 0, y: top, height: this.band, rx: 6 }, this.svg));
      draw("text", { x: 10, y: top + this.band / 2 + 4, "aria-hidden": "true" }, this.svg).textContent = group + 1;
    }
    this.edges = draw("g", { "aria-hidden": "true" }, this.svg);
    this.parts = Array.from({ length: search.groups }, (_, group) => draw("g", { role: "group", "aria-label": `group ${group + 1}` }, this.svg));
    this.answers = draw("g", { "aria-hidden": "true" }, this.svg);
    this.widen(0);
    this.listen();
  }

  // Makes room for a round. The box follows a tree that grows out of sight, unless a person has scrolled back.
  widen(round) {
    const wide = LEFT + RIGHT + (round + 1) * this.step, { box } = this;
    if (wide <= this.widest) return;
    const follows = box.scrollLeft + box.clientWidth >= this.widest - 2;
    this.widest = wide;
    this.svg.style.minWidth = `${wide}px`;
    for (const band of this.bands) band.setAttribute("width", wide);
    if (follows && wide > box.clientWidth) box.scrollLeft = wide;
  }

  top(group) {
    return group * (this.band + GAP);
  }

  place(node) {
    return [LEFT + (node.round + 0.5) * this.step, this.top(node.group) + (node.index + 0.5) * LANE];
  }

  add(batch) {
    const lines = { kept: "", pruned: "" };
    for (const node of batch) {
      lines[node.state === "pruned" ? "pruned" : "kept"] += this.line(node);
      this.mark(node, batch.length < 60);
    }
    for (const [state, d] of Object.entries(lines)) if (d) draw("path", { class: `edge ${state}`, d }, this.edges);
    this.widen(Math.max(...batch.map((node) => node.round)));
  }

  line(node) {
    const parent = this.search.nodes[node.parent];
    const from = parent.id ? this.place(parent) : [LEFT - 10, this.top(node.group) + this.band / 2];
    const to = this.place(node), middle = (from[0] + to[0]) / 2;
    return `M${from}C${middle} ${from[1]} ${middle} ${to[1]} ${to}`;
  }

  mark(node, alone) {
    const shade = node.state !== "pruned" && node.value !== null ? colour(node.value) : "";
    const [x, y] = this.place(node);
    this.marks.set(node.id, draw("path", {
      class: `node ${node.state} ${shade} ${alone ? "new" : ""}`, d: SHAPES[node.state], transform: `translate(${x} ${y})`,
      role: "treeitem", "aria-level": node.round + 1, "aria-selected": "false", "aria-label": label(node), tabindex: this.marks.size ? -1 : 0, "data-id": node.id,
    }, this.parts[node.group]));
    this.names.get(cell(node, -1))?.remove();  // the label of an answer, where a block now follows
    if (node.state === "finished" && node.answer !== null && !this.search.cells.has(cell(node, 1))) this.name(node, x, y);
  }

  name(node, x, y) {
    const name = draw("text", { class: "answer", x: x + 14, y: y + 4 }, this.answers);
    name.textContent = shortened(plain(node.answer), 9);
    this.names.set(cell(node), name);
  }

  showChosen() {
    const leaf = this.search.chosen;
    if (leaf) draw("path", { class: "edge chosen", d: this.search.path(leaf).map((node) => this.line(node)).join("") }, this.edges);
  }

  // Marks a node as selected; null selects none.
  select(node, focus) {
    const before = this.marks.get(this.selected?.id), mark = this.marks.get(node?.id);
    before?.setAttribute("aria-selected", "false");
    this.selected = node;
    if (!mark) return;
    this.svg.querySelector("[tabindex='0']")?.setAttribute("tabindex", -1);
    mark.setAttribute("tabindex", 0);
    mark.setAttribute("aria-selected", "true");
    if (focus) mark.focus({ preventScroll: true });
    this.reveal(node, focus);
  }

  // Scrolls the box, and with `page` also the page, until the node is in sight.
  reveal(node, page) {
    if (page) return this.marks.get(node.id).scrollIntoView({ block: "nearest", inline: "nearest" });
    const [x, y] = this.place(node), { scrollTop, clientHeight, clientWidth } = this.box;
    if (y < scrollTop + LANE || y > scrollTop + clientHeight - LANE) this.box.scrollTop = y - clientHeight / 2;
    this.box.scrollLeft = Math.max(x + RIGHT - clientWidth, 0);
  }

  moved(key) {
    const { nodes } = this.search;
    const node = this.selected ?? nodes.find((other) => other?.id);
    if (key === "ArrowLeft") return nodes[node.parent];
    if (key === "ArrowRight") {
      const children = this.search.children(node);
      return children.find((other) => other.state !== "pruned") ?? children[0];
    }
    const order = nodes.filter((other) => (key === "Home" || key === "End" ? other.id : other.round === node.round));
    order.sort((one, other) => this.place(one)[1] - this.place(other)[1] || one.round - other.round);
    const at = order.indexOf(node);
    return { ArrowUp: order[at - 1], ArrowDown: order[at + 1], Home: order[0], End: order.at(-1) }[key];
  }

  listen() {
    this.svg.addEventListener("keydown", (event) => {
      if (!KEYS.includes(event.key) || !this.marks.size) return;
      event.preventDefault();
      const node = ["Enter", " "].includes(event.key) ? this.search.nodes[event.target.dataset.id] : this.moved(event.key);
      if (node?.id) this.choose(node, true);
    });
    this.svg.addEventListener("click", (event) => {
      const node = this.search.nodes[event.target.dataset.id] ?? this.under(event);
      if (node && this.marks.has(node.id)) this.choose(node, true);
    });
    this.svg.addEventListener("pointerover", ({ target }) => {
      if (target.dataset?.id && !target.firstChild) draw("title", {}, target).textContent = target.getAttribute("aria-label");
    });
  }

  // A click anywhere in the cell of a node selects it, because the marks are small.
  under(event) {
    const at = this.svg.getBoundingClientRect(), down = event.clientY - at.top;
    const group = Math.floor(down / (this.band + GAP)), index = Math.floor((down % (this.band + GAP)) / LANE);
    return this.search.cells.get(`${group},${Math.floor((event.clientX - at.left - LEFT) / this.step)},${index}`);
  }
}
