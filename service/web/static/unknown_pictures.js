// What stands for a kept query or an item on a page: its picture, its text, or what is known of it.
import { shorten } from "./format.js";
import { element } from "./page.js";

const address = (id) => `/v1/unknowns/${encodeURIComponent(id)}/thumbnail`;

/** The picture, the text or the metadata of a kept query; `kind` is the encoder's. */
export function showUnknown(unknown, kind, className = "picture") {
  const words = describe(unknown.metadata) || new Date(unknown.at).toLocaleTimeString("en-GB");
  if (!unknown.has_thumbnail) return element("span", { class: `${className} text` }, shorten(words, 90));
  if (kind === "image" || kind === "audio") { // of a recording, its spectrogram
    return element("img", { class: className, src: address(unknown.id), alt: words, loading: "lazy", decoding: "async" });
  }
  const text = element("span", { class: `${className} text` }, "…");
  fetch(address(unknown.id))
    .then((response) => (response.ok ? response.text() : words))
    .catch(() => words)
    .then((content) => { text.textContent = shorten(content, className === "picture" ? 90 : 500); });
  return text;
}

/** The picture, the text or the metadata of an item, from its preview. */
export function showItem(preview, className = "picture") {
  if (!preview) return element("span", { class: `${className} text` }, "This item is gone.");
  if (preview.kind === "picture") {
    const source = `/v1/items/${encodeURIComponent(preview.id)}/thumbnail`;
    return element("img", { class: className, src: source, alt: preview.id, decoding: "async" });
  }
  return element("span", { class: `${className} text` }, preview.text || describe(preview.metadata) || preview.id);
}

/** Metadata in a line: "camera 2 · doors north, south". */
export function describe(metadata) {
  return Object.entries(metadata || {}).filter(([, value]) => String(value) !== "").slice(0, 4)
    .map(([name, value]) => `${name} ${shorten(Array.isArray(value) ? value.join(", ") : String(value), 40)}`).join(" · ");
}
