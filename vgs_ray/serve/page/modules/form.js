// The form: problem with preview, known answer, search method, options, and examples that the served model can solve.

import { models, Refused } from "./api.js";
import { $, button, make } from "./dom.js";
import { hasFormula, rich } from "./latex.js";

const LARGEST = Number.MAX_SAFE_INTEGER;
let preview;

// One request for each search: of the chosen method, or the three of a comparison.
export function requests(compares) {
  const options = given(), messages = [{ role: "user", content: $("problem").value }];
  const body = (model, search) => ({ model, messages, stream: true, stream_options: { include_usage: true }, search: { ...search, events: true } });
  if (!compares) return [[$("model").value, body($("model").value, options)]];
  const { budget, ...alone } = options;
  return [["policy", body("policy", alone)], ["majority", body("majority", options)], ["guided", body(guided(), options)]];
}

// The method of a comparison's guided search: the chosen one, if it is one.
function guided() {
  const chosen = $("model").selectedOptions[0];
  return chosen?.dataset.method === "sample" ? $("model").options[0].value : $("model").value;
}

function given() {
  const numbers = { budget: $("budget"), deadline_s: $("deadline"), seed: $("seed") };
  for (const field of Object.values(numbers)) {
    if (!field.validity.badInput) continue;  // its value is empty then, and the server's default would be used silently
    throw new Refused(`${field.labels[0].textContent} is not a number. Enter a number or leave the field empty.`, field.id);
  }
  const found = Object.entries(numbers).filter(([, field]) => field.value !== "").map(([name, field]) => [name, Number(field.value)]);
  const options = Object.fromEntries(found);
  if (Number.isInteger(options.seed) && !Number.isSafeInteger(options.seed)) {  // JavaScript would round it and repeat another search
    throw new Refused(`Seed is ${$("seed").value}; this page accepts -${LARGEST} to ${LARGEST}. Choose another seed or use an API client.`, "seed");
  }
  return options;
}

export const knownAnswer = () => $("known").value.trim() || null;

export function fill(problem, known) {
  $("problem").value = problem;
  $("known").value = known ?? "";
  $("known").dataset.of = problem;
  look();
}

function look() {
  const text = $("problem").value;
  $("preview").hidden = !hasFormula(text);
  $("preview-text").replaceChildren(...($("preview").hidden ? [] : rich(text)));
}

// Search methods and examples of this server. The first method is the recipe's own and names the model.
export async function loadModels() {
  const found = await models();
  $("model").replaceChildren(...found.map(({ id, search }) => {
    const how = Object.entries(search ?? {}).map(([name, value]) => (typeof value === "number" ? `${name} ${value}` : value)).join(", ");
    return make("option", { value: id, "data-method": search?.method ?? "beam" }, how ? `${id} (${how})` : id);
  }));
  const all = await (await fetch("static/examples.json")).json();
  return all[found[0]?.id] ?? [];
}

// The first example also starts a comparison on the empty page.
export function showExamples(examples, compare) {
  $("examples").hidden = $("try").hidden = !examples.length;
  $("examples").replaceChildren(make("span", {}, "Examples"), ...examples.map(({ name, problem, answer }) => button(name, () => { fill(problem, answer); $("problem").focus(); })));
  if (!examples.length) return;
  const [{ name, problem, answer }] = examples;
  $("try").textContent = `Compare on an example: ${name.toLowerCase()}`;
  $("try").onclick = () => { fill(problem, answer); compare(); };
}

$("problem").addEventListener("input", () => {
  const { of } = $("known").dataset;
  if (of && $("problem").value !== of) { $("known").value = ""; delete $("known").dataset.of; }  // it was the example's
  clearTimeout(preview);
  preview = setTimeout(look, 150);
});
