// The page: starts searches, draws what arrives, and shows one run at a time.

import { Refused } from "./api.js";
import { clearBlock, showBlock } from "./block.js";
import { asCurl, copy, download } from "./copy.js";
import { $, button, draw, make } from "./dom.js";
import { fill, knownAnswer, loadModels, requests, showExamples } from "./form.js";
import { many, number, plain, seconds } from "./format.js";
import { rich } from "./latex.js";
import { fromLink, toLink } from "./link.js";
import { Panel } from "./panel.js";
import { fromRecord, LARGEST_FILE, toRecord } from "./record.js";
import { badge, showAnswer, showCosts, showVerdict, showVote, showWay, summary } from "./results.js";
import { Run, TITLES } from "./run.js";
import { Search } from "./search.js";
import { SHAPES, WORDS } from "./tree.js";

const DRAWN_A_FRAME = 400;  // keeps frames short when thousands of blocks arrive at once
const KEPT_RUNS = 20;
const narrow = matchMedia("(max-width: 900px)");
let run = null;  // the run that the page shows
let panels = [];
let selected = null;
let frame = null, told = 0, leaves = -1, revealed = false;
const runs = [];  // of this tab, newest first

// ---- a run --------------------------------------------------------------------------------------------------------

async function launch(compares) {
  if (run?.running) return;
  let searches;
  try {
    searches = requests(compares).map(([name, body]) => new Search(name, body));
  } catch (error) {
    return fail(error);
  }
  const mine = new Run($("problem").value, knownAnswer(), searches);
  open(mine);
  enter("searching", compares ? "Comparing" : "Searching");
  const clock = setInterval(later, 100);
  await Promise.all(searches.map((search) => search.run(later)));
  clearInterval(clock);
  paint(Infinity);
  if (mine.searches.some((search) => search.start)) remember(mine);
  finish(mine);
}

// Shows a run; its panels are empty until `paint` or `redraw`.
function open(mine) {
  fail(null);
  $("copied").textContent = "";
  run = mine;
  selected = null;
  told = performance.now();
  leaves = -1;
  revealed = false;
  $("work").hidden = $("vote-card").hidden = false;
  document.body.dataset.mode = run.compares ? "compare" : "single";
  $("tree-title").textContent = run.compares ? "Search trees" : "Search tree";
  panels = run.searches.map((search) => new Panel(search, run.title(search), choose));
  $("box").replaceChildren(...panels.map((panel) => panel.element));
  $("way-card").hidden = true;
  clearBlock();
  showVerdict(run, runs);
  showAnswer(run);
  $("vote-about").textContent = "No answer is finished yet.";
  $("votes").replaceChildren();
}

function finish(mine) {
  const { state } = mine;
  const failed = mine.searches.filter((search) => search.error), ended = mine.searches.filter((search) => search.state === "done");
  showVerdict(mine, runs);
  activate(mine.active);
  $("work").hidden = $("vote-card").hidden = mine.searches.every((search) => !search.blocks);
  if (!$("work").hidden && !revealed) reveal();
  const chosen = mine.active.chosen;
  if (chosen && !selected) choose(panels.at(-1), chosen, false);
  const time = seconds(Math.max(...mine.searches.map((search) => search.seconds)));
  if (state === "cancelled") enter(state, `Cancelled after ${time}; the server has stopped the search`);
  else if (state === "failed") { enter(state, ended.length ? `${failed.length} of ${mine.searches.length} searches failed` : "No answer"); fail(failed[0].error); }
  else enter("done", `${mine.file ? `Opened from ${mine.file}` : "Done"}: ${outcome(mine)}`);
}

function outcome(mine) {
  if (mine.compares) return `${mine.searches.filter((search) => search.state === "done").length} searches have ended`;
  return mine.active.answer === null ? "no answer was finished" : `the answer is ${plain(mine.active.answer)}`;
}

// Shows answer, vote and way of one of the searches.
function activate(search) {
  run.active = search;
  showAnswer(run);
  if (search.start) showVote(search);
  if (search.reply) showWay(search, (node) => choose(panels[run.searches.indexOf(search)], node, true));
}

function choose(panel, node, focus) {
  if (run.active !== panel.search) activate(panel.search);
  for (const other of panels) if (other !== panel) other.tree?.select(null);
  selected = node;
  panel.tree.select(node, focus);
  showBlock(run, panel.search, node);
}

function later() {
  frame ??= requestAnimationFrame(() => { frame = null; paint(DRAWN_A_FRAME); });
}

function paint(most) {
  for (const panel of panels) panel.update(most);
  showCosts(run);
  if (run.running) tell();
  if (run.running && !revealed && panels.some((panel) => panel.tree)) reveal();
  if (run.active.start && run.active.leaves !== leaves) { leaves = run.active.leaves; showVote(run.active); }
  if (panels.some((panel) => panel.search.start && panel.search.arrived.length)) later();
}

// Brings state and tree into sight when the tree begins. Narrow windows have the form above them.
function reveal() {
  revealed = true;
  $("state").scrollIntoView({ block: narrow.matches ? "start" : "nearest" });
}

// Updated every few seconds only: a screen reader would otherwise read every block aloud.
function tell() {
  const waits = run.searches.filter((search) => search.state === "queued");
  const words = waits.length === run.searches.length
    ? `Waiting: position ${waits[0].start.queue_position} in the queue`
    : run.compares ? `Comparing: ${run.searches.map((search) => `${TITLES[search.name].toLowerCase()} ${many(search.leaves, "answer")}`).join(", ")}`
      : `Searching: ${number.format(run.active.blocks)} blocks, ${number.format(run.active.leaves)} answers so far`;
  const now = performance.now(), changed = $("status").textContent.startsWith("Waiting") !== words.startsWith("Waiting");
  if (!changed && now - told < 5000) return;
  told = now;
  $("status").textContent = words;
}

function enter(state, words) {
  const focused = [$("search"), $("compare"), $("cancel"), $("try")].includes(document.activeElement);
  const by = run?.compares ? "compare" : "search";
  document.body.dataset.state = state;
  const busy = state === "searching";
  $("search").hidden = $("compare").hidden = busy;
  $("cancel").hidden = !busy;
  $("save").hidden = $("link").hidden = $("curl").hidden = busy || !run.searches.every((search) => search.reply);
  $("curl").hidden ||= run.file !== null;
  for (const control of document.querySelectorAll("#history button, #open")) control.disabled = busy;
  if (focused) $(busy ? "cancel" : by).focus({ preventScroll: true });  // the changed part of the page may be elsewhere
  $("status").textContent = words;
  showCosts(run);
}

// Shows an error and moves the focus to it; null removes it.
function fail(error) {
  $("error").hidden = !error;
  $("error").replaceChildren();
  for (const field of document.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  if (!error) return;
  if (!(error instanceof Refused)) console.error(error);
  $("error").append(make("span", {}, error.message));
  const field = error.field && $(error.field);
  if (field) field.setAttribute("aria-invalid", "true");
  if (field?.closest("details")) field.closest("details").open = true;
  if (field && error.field !== "key") $("error").append(button(`Go to ${field.labels[0].textContent}`, () => field.focus()));
  if (error.field === "key") field.focus({ preventScroll: true });
  else $("error").focus({ preventScroll: true });
  $("error").scrollIntoView({ block: "nearest" });
}

// ---- history and files --------------------------------------------------------------------------------------------

function remember(mine) {
  runs.unshift(mine);
  runs.length = Math.min(runs.length, KEPT_RUNS);
  $("history-box").hidden = false;
  $("history-title").textContent = `History of this tab (${runs.length})`;
  $("history").replaceChildren(...runs.map((other) => {
    const made = button(summary(other), () => show(other));
    const marks = other.searches.map((search) => badge(other.right(search), other.known)).filter(Boolean);
    const what = other.compares ? "comparison" : other.active.name;
    return make("li", {}, made, make("span", { class: "about" }, `${other.file ? `${other.file}, ` : ""}${what}, ${other.began.toLocaleTimeString()} `, other.compares ? "" : marks[0] ?? ""));
  }));
}

function show(other) {
  fill(other.problem, other.known);
  open(other);
  enter(other.state, "");  // boxes have no size before
  for (const panel of panels) panel.redraw();
  finish(other);
}

async function openFile(file) {
  if (file.size > LARGEST_FILE) throw new Refused(`${file.name} has ${number.format(file.size)} bytes; this page opens at most ${number.format(LARGEST_FILE)}.`);
  openRecord(await file.text(), file.name);
}

async function openLink() {
  const text = await fromLink(location.hash);
  if (text !== null) openRecord(text, "the link");
}

function openRecord(text, name) {
  const found = fromRecord(text, name);
  show(found);
  remember(found);
}

async function copyLink() {
  try {
    copy("Link", await toLink(JSON.stringify(toRecord(run))));
  } catch (error) {
    $("copied").textContent = error.message;
  }
}

// ---- the page -----------------------------------------------------------------------------------------------------

function legend() {
  const scale = make("span", { class: "scale", "aria-hidden": "true" }, ...Array.from({ length: 10 }, (_, at) => make("i", { class: `v${at}` })));
  const marks = Object.entries(SHAPES).map(([state, d]) => {
    const place = make("span");
    draw("path", { class: `node ${state}`, d }, draw("svg", { width: 18, height: 18, viewBox: "-10 -10 20 20", "aria-hidden": "true" }, place));
    place.append(WORDS[state]);
    return place;
  });
  $("legend").append(make("span", {}, "value 0", scale, "1"), ...marks);
}

async function load() {
  try {
    showExamples(await loadModels(), () => launch(true));
    fail(null);
  } catch (error) {
    fail(error);
  }
}

$("ask").addEventListener("submit", (event) => { event.preventDefault(); launch(false); });
$("compare").addEventListener("click", () => launch(true));
$("cancel").addEventListener("click", () => run.searches.forEach((search) => search.abort.abort()));
$("problem").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); launch(event.shiftKey); }
});
$("thought").addEventListener("toggle", () => { if ($("thought").open) $("thought-text").replaceChildren(...rich(run.active.thought)); });
$("key").addEventListener("change", () => { sessionStorage.setItem("key", $("key").value.trim()); load(); });
$("copy-answer").addEventListener("click", () => copy("Answer", run.active.answer));
$("copy-thought").addEventListener("click", () => copy("Thought", run.active.thought));
$("curl").addEventListener("click", () => copy("Request", asCurl(run.active, $("key").value.trim() !== "")));
$("save").addEventListener("click", () => download("vgs_ray_tree.json", JSON.stringify(toRecord(run))));
$("open").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => { const [file] = $("file").files; $("file").value = ""; if (file) openFile(file).catch(fail); });
$("link").addEventListener("click", copyLink);
addEventListener("hashchange", () => openLink().catch(fail));

legend();
$("key").value = sessionStorage.getItem("key") ?? "";
load().then(openLink).catch(fail);
