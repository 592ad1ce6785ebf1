// A finished run as a link: its record, compressed, behind the # of the page's address. Browsers do not send that part to a server.

import { Refused } from "./api.js";
import { LARGEST_FILE } from "./record.js";

const MARK = "#tree=", LONGEST = 32_000;  // characters; programs for mail and chat cut longer links

export async function toLink(record) {
  const packed = new Blob([record]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  const bytes = new Uint8Array(await new Response(packed).arrayBuffer());
  if (bytes.length > 0.75 * LONGEST) throw new Refused("The tree is too large for a link. Save it as a file.");
  const code = btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  return `${document.baseURI.split("#")[0]}${MARK}${code}`;
}

// The record in an address; null if it has none.
export async function fromLink(address) {
  if (!address.startsWith(MARK)) return null;
  let text = "";
  try {
    const bytes = Uint8Array.from(atob(address.slice(MARK.length).replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
    const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw")).pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done && text.length <= LARGEST_FILE; part = await reader.read()) text += part.value;
    reader.cancel();
  } catch {
    throw new Refused("The link is damaged. Copy the whole link.");
  }
  if (text.length > LARGEST_FILE) throw new Refused("The link holds a larger tree than this page opens.");
  return text;
}
