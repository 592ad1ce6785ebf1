// A condensed picture of a tree that is much higher than its box: a row for each group, a column for each round, and a frame around
// the part in sight. A click or a drag scrolls there. The tree itself has the same for the keyboard (arrows, Home, End).

import { make } from "./dom.js";
import { colour } from "./format.js";

const WIDTH = 84;  // pixels

export class Overview {
  constructor(tree, place) {
    this.tree = tree;
    this.best = new Map();  // highest value of each drawn cell
    this.columns = Math.min(tree.search.rounds, WIDTH / 2);
    this.canvas = make("canvas", { "aria-hidden": "true" });
    this.frame = make("i");
    place.replaceChildren(this.canvas, this.frame);
    place.hidden = tree.height < 2 * tree.box.clientHeight || tree.box.clientWidth < 4 * WIDTH;
    if (place.hidden) return;
    this.size();
    tree.box.addEventListener("scroll", () => this.follow());
    place.addEventListener("pointerdown", (event) => { place.setPointerCapture(event.pointerId); this.go(event); });
    place.addEventListener("pointermove", (event) => { if (event.buttons) this.go(event); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    addEventListener("resize", () => { this.size(); this.redraw(); });
  }

  size() {
    this.rows = this.tree.search.groups;
    this.height = this.tree.box.clientHeight;
    this.canvas.width = WIDTH * devicePixelRatio;
    this.canvas.height = this.height * devicePixelRatio;
    this.canvas.style.height = `${this.height}px`;
    this.follow();
  }

  add(batch) {
    if (!this.height) return;
    const style = getComputedStyle(document.documentElement);
    for (const node of batch) {
      if (node.state === "pruned" || node.value === null) continue;
      const at = `${node.group},${node.round}`;
      if (node.value < (this.best.get(at)?.value ?? 0)) continue;
      this.best.set(at, node);
      this.fill(node, style);
    }
  }

  fill(node, style) {
    const context = this.canvas.getContext("2d"), wide = this.canvas.width / this.columns, high = this.canvas.height / this.rows;
    context.fillStyle = style.getPropertyValue(`--${colour(node.value)}`);
    context.fillRect(node.round * wide, node.group * high, Math.max(wide - 1, 1), Math.max(high - (high > 3 ? 1 : 0), 1));
  }

  redraw() {
    const style = getComputedStyle(document.documentElement);
    for (const node of this.best.values()) this.fill(node, style);
  }

  follow() {
    const { scrollTop, clientHeight } = this.tree.box;
    this.frame.style.top = `${(scrollTop / this.tree.height) * this.height}px`;
    this.frame.style.height = `${(clientHeight / this.tree.height) * this.height}px`;
  }

  go(event) {
    const at = (event.clientY - this.canvas.getBoundingClientRect().top) / this.height;
    this.tree.box.scrollTop = at * this.tree.height - this.tree.box.clientHeight / 2;
  }
}
