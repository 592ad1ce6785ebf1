// Requests to the endpoint.

import { $ } from "./dom.js";

// An error whose message is for the reader. `field` is the id of the field that has to change.
export class Refused extends Error {
  constructor(message, field = null) {
    super(message);
    this.field = field;
  }
}

const FIELDS = { "search.budget": "budget", "search.deadline_s": "deadline", "search.seed": "seed", seed: "seed", messages: "problem", model: "model" };

export async function call(path, body, signal) {
  const key = $("key").value.trim();
  const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
  let reply;
  try {
    reply = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body), signal } : { headers, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The endpoint does not respond. Check that it is running.");
  }
  if (reply.ok) return reply;
  if (reply.status === 401) throw new Refused(`${key ? "The API key is not valid." : "This server requires an API key."} Enter a valid key under Options.`, "key");
  const said = await reply.json().then((it) => it.error, () => ({ message: `The endpoint replied with status ${reply.status}.` }));
  throw new Refused(said.message, FIELDS[said.param] ?? null);
}

// Server-sent events as [name, data]. EventSource can neither send a body nor an API key.
export async function* events(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Refused("The connection was closed before the search ended.");
    const frames = (rest + value).split("\n\n");
    rest = frames.pop();
    for (const frame of frames) {
      const lines = Object.fromEntries(frame.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
      if (lines.data === "[DONE]") return;
      if (lines.data) yield [lines.event ?? "", JSON.parse(lines.data)];
    }
  }
}

export async function models() {
  const { data } = await (await call("v1/models")).json();
  return data;
}
