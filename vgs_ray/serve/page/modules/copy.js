// The clipboard, files, and a search as a command.

import { $ } from "./dom.js";

// Copies text, also where the page is not a secure context (a server in the local network, without TLS).
export async function copy(words, text) {
  try {
    if (navigator.clipboard) await navigator.clipboard.writeText(text);
    else copyBySelection(text);
    $("copied").textContent = `${words} copied`;
  } catch {
    $("copied").textContent = `The browser does not allow to copy the ${words.toLowerCase()}`;
  }
}

function copyBySelection(text) {
  const focused = document.activeElement, field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
  focused?.focus({ preventScroll: true });
}

// The request of a search with its seed, without streaming. An API key is not part of it.
export function asCurl(search, hasKey) {
  const { events, ...options } = search.body.search;
  const seed = search.reply?.seed ?? options.seed;
  const body = JSON.stringify({ model: search.body.model, messages: search.body.messages, search: { ...options, ...(seed !== undefined && { seed }) } }, null, 2);
  const key = hasKey ? ' -H "authorization: Bearer $VGS_RAY_API_KEY"' : "";
  return `curl ${new URL("v1/chat/completions", document.baseURI)} -H 'content-type: application/json'${key} -d '${body.replaceAll("'", "'\\''")}'`;
}

export function download(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
