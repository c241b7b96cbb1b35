// Ask about a picture, a recording, a text, a vector or an item: the answer of /v1/match, drawn and explained.
import { call } from "./api.js";
import { number, percent, count } from "./format.js";
import { element, press, say } from "./page.js";
import { showItem } from "./unknown_pictures.js";

const CANDIDATES = 5;
const NEAREST = 8;
const form = document.getElementById("ask");
const { kind, dim, max, key, decides } = form.dataset;
const byId = (id) => document.getElementById(id);
const noun = kind === "audio" ? "recording" : "picture";
let chosen = null; // { name, uri }
let shown = null; // { query, result }, what the answer is about

const WORDS = {
  best: "similarity with the nearest item",
  mean: "mean similarity with all items of the class",
  tightness: "how alike the items of the class are",
  query_density: "how crowded it is around the query",
  class_density: "how crowded it is around the class",
  item_density: "how crowded it is around the item",
  plda: "likelihood ratio of the class (PLDA)",
};

function chosenWay() { return new FormData(form).get("way"); }

form.addEventListener("change", (event) => {
  if (event.target.name !== "way") return;
  document.querySelectorAll(".way").forEach((way) => { way.hidden = way.dataset.way !== event.target.value; });
});

// -- files ---------------------------------------------------------------------------------------------
async function take(file) {
  if (!file) return;
  if (file.size > Number(max)) { say(`${file.name} has ${count(file.size)} bytes, at most ${count(Number(max))} are taken.`, "bad"); return; }
  const uri = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
  chosen = { name: file.name || "picture.png", uri };
  const shown = byId("chosen");
  shown.src = URL.createObjectURL(file);
  shown.hidden = false;
  say("");
  form.requestSubmit();
}

const drop = byId("drop");
if (drop) {
  byId("file").addEventListener("change", (event) => take(event.target.files[0]));
  for (const name of ["dragover", "dragenter"]) drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { event.preventDefault(); drop.classList.remove("over"); take(event.dataTransfer.files[0]); });
  document.addEventListener("paste", (event) => { if (chosenWay() === "file") take(event.clipboardData.files[0]); });
}

// -- the question --------------------------------------------------------------------------------------
function readNumbers(text) {
  const parts = text.replace(/[[\]]/g, " ").split(/[\s,;]+/).filter((part) => part);
  const values = parts.map(Number);
  const wrong = values.findIndex((value) => !Number.isFinite(value));
  if (wrong >= 0) throw new Error(`"${parts[wrong].slice(0, 40)}" is no number.`);
  return values;
}

function readQuery() {
  const way = chosenWay();
  if (way === "file") {
    if (!chosen) throw new Error(`Choose a ${noun} first.`);
    return { input: chosen.uri };
  }
  if (way === "text") {
    if (!byId("words").value.trim()) throw new Error("Write a text first.");
    return { input: byId("words").value };
  }
  if (way === "row") return { input: readNumbers(byId("numbers").value) };
  if (way === "vector") {
    const vector = readNumbers(byId("vector").value);
    if (vector.length !== Number(dim)) throw new Error(`A vector has ${dim} numbers, these are ${vector.length}.`);
    return { vector };
  }
  const id = byId("item").value || byId("item").placeholder;
  byId("item").value = id;
  return { id };
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  press(byId("decide"), async () => {
    const query = readQuery();
    say("");
    const asked = { queries: [query], candidates: CANDIDATES, explain: true, keep: false };
    const [answer, found] = await Promise.all([
      decides === "true" ? call("POST", "/v1/match", asked) : null,
      call("POST", "/v1/search", { queries: [query], k: NEAREST }),
    ]);
    const hits = found.results[0].hits;
    const { previews } = hits.length ? await call("POST", "/v1/items/previews", { ids: hits.map((hit) => hit.id) }) : { previews: [] };
    byId("take-back")?.setAttribute("hidden", "");
    if (byId("enroll")) byId("enroll").hidden = "id" in query;
    shown = { query, result: answer && answer.results[0] };
    byId("answer").hidden = false; // before anything is measured for drawing
    showDecision(answer && answer.results[0]);
    showNearest(hits, new Map(previews.map((preview) => [preview.id, preview])));
    showCurl(asked);
    byId("answer").scrollIntoView({ block: "nearest" });
  });
});

// -- the answer ----------------------------------------------------------------------------------------
function showDecision(result) {
  const card = document.querySelector(".verdict");
  card.hidden = byId("why-card").hidden = !result;
  if (!result) return;
  card.className = `card verdict ${result.decision}`;
  card.dataset.decision = result.decision;
  card.dataset.label = result.label || "";
  const name = element("b", { class: "text" }, result.label || "");
  const sure = result.probability === null ? "" : ` The answer is right with a probability of ${percent(result.probability)}.`;
  byId("decision").replaceChildren(...(result.decision === "match"
    ? ["This is ", name, `.${sure}`]
    : result.label === null ? ["Unknown: there is no item to compare with."] : ["Unknown. The nearest class is ", name, `, and it is not near enough.${sure}`]));
  const facts = [`score ${number(result.score)}, threshold ${number(result.threshold)}`];
  if (result.margin !== null) facts.push(`${number(result.margin)} before the next class`);
  if (result.beyond_proof) facts.push("beyond what the operating point is proven for");
  byId("about").textContent = facts.join(" · ");
  drawScale(result);
  showWhy(result);
  if (!byId("judge")) return;
  byId("judge").hidden = result.label === null;
  for (const label of byId("judge").querySelectorAll("b")) label.textContent = result.label;
}

// -- what people say of it -----------------------------------------------------------------------------
for (const button of document.querySelectorAll("#judge [data-verdict]")) {
  button.addEventListener("click", () => press(button, async () => {
    const { label, decision_id } = shown.result;
    const { verdict } = button.dataset;
    const said = verdict === "not_label" ? { not_label: label } : { same: verdict === "same" };
    shown.feedback = (await call("POST", "/v1/feedback", { decision_id, ...said })).id;
    byId("take-back").hidden = false;
    say(verdict === "not_label" ? `It is never answered with ${label} again; Review lists it.` : "Noted: it counts in the feedback report.");
  }));
}
byId("take-back")?.addEventListener("click", (event) => press(event.target, async () => {
  await call("DELETE", `/v1/feedback/${encodeURIComponent(shown.feedback)}`);
  event.target.hidden = true;
  say("Taken back.");
}));
byId("enroll")?.addEventListener("submit", (event) => {
  event.preventDefault();
  press(event.target.querySelector("button"), async () => {
    const label = byId("enroll-label").value;
    const id = `${label.slice(0, 400)}/${Date.now()}`;
    await call("PUT", "/v1/items", { items: [{ ...shown.query, id, label }] });
    byId("enroll-label").value = "";
    say(`It is an item of ${label} now: ask again.`);
  });
});

const SVG = "http://www.w3.org/2000/svg";
function draw(parent, name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

/** The scores of the best classes on a line, with the threshold. */
function drawScale(result) {
  const scores = result.candidates.map((candidate) => candidate.score);
  const all = [...scores, result.threshold];
  const room = (Math.max(...all) - Math.min(...all)) * 0.12 || 0.05;
  const [low, high] = [Math.min(...all) - room, Math.max(...all) + room];
  const box = byId("scale");
  const width = Math.max(280, box.clientWidth || 600);
  const x = (score) => 8 + (width - 16) * (score - low) / (high - low);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} 74`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Scores ${scores.map((score) => number(score)).join(", ")}; threshold ${number(result.threshold)}`);
  const limit = x(result.threshold);
  draw(svg, "rect", { class: "room", x: 8, y: 30, width: width - 16, height: 10, rx: 5 });
  draw(svg, "rect", { class: "beyond", x: limit, y: 22, width: Math.max(0, width - 8 - limit), height: 26 });
  draw(svg, "line", { class: "limit", x1: limit, x2: limit, y1: 18, y2: 52 });
  draw(svg, "text", { class: "limit-text", x: limit, y: 68, "text-anchor": limit > width / 2 ? "end" : "start" }, `threshold ${number(result.threshold)}`);
  result.candidates.slice().reverse().forEach((candidate, at, { length }) => {
    const isBest = at === length - 1;
    const dot = draw(svg, "circle", { cx: x(candidate.score), cy: 35, r: isBest ? 8 : 5.5, class: isBest ? (result.decision === "match" ? "best" : "below") : "" });
    draw(dot, "title", {}, `${candidate.label}: ${number(candidate.score)}`);
  });
  if (result.label !== null) {
    const at = x(result.score);
    draw(svg, "text", { x: at, y: 13, "text-anchor": at > width * 0.66 ? "end" : at < width * 0.33 ? "start" : "middle" }, `${Array.from(result.label).slice(0, 24).join("")} ${number(result.score)}`);
  }
  box.replaceChildren(svg);
}

function showWhy(result) {
  const why = result.explanation;
  byId("why-card").hidden = !why;
  if (!why) return;
  const alike = why.tightness === null ? "" : `; its items are ${number(why.tightness, 3)} alike`;
  byId("why-about").textContent = `The class has ${count(why.items)} ${why.items === 1 ? "item" : "items"}${alike}. The nearest is ${number(why.best, 3)} alike the query, all of them ${number(why.mean, 3)} on average.`;
  const rows = why.parts.map((part) => [WORDS[part.name] || part.name, number(part.value, 3), number(part.contribution, 3)]);
  if (why.intercept) rows.push(["constant", "", number(why.intercept, 3)]);
  rows.push(["score", "", number(result.score)]);
  document.querySelector("#why tbody").replaceChildren(...rows.map(([what, value, adds], at) => element("tr", { class: at === rows.length - 1 ? "sum" : null },
    element("td", {}, what), element("td", { class: "n" }, value), element("td", { class: "n" }, adds))));
}

function classAddress(label) {
  const quoted = encodeURIComponent(label);
  return label === "." || label === ".." ? `/dashboard/classes/?label=${quoted}` : `/dashboard/classes/${quoted}`;
}

function showNearest(hits, previews) {
  byId("nearest").replaceChildren(...hits.map((hit) => element("li", { "data-id": hit.id },
    showItem(previews.get(hit.id)),
    element("div", {}, element("a", { class: "text", href: classAddress(hit.label) }, element("b", {}, hit.label)), element("span", { class: "faint text" }, hit.id)),
    element("span", { class: "near-score" }, number(hit.similarity)))));
}

// -- the same from a terminal --------------------------------------------------------------------------
const quoteForShell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function showCurl(asked) {
  const auth = key === "true" ? " -H \"Authorization: Bearer $LIMEN_KEY\"" : "";
  const target = `curl -s ${location.origin}/v1/match -H 'Content-Type: application/json'${auth}`;
  const [query] = asked.queries;
  if (chosen && query.input === chosen.uri) {
    const head = chosen.uri.slice(0, chosen.uri.indexOf(",") + 1);
    const body = JSON.stringify({ ...asked, queries: [{ input: `${head}CHOSEN` }] });
    const [before, after] = body.split("CHOSEN");
    byId("curl").textContent = `(printf '%s' ${quoteForShell(before)}; base64 < ${quoteForShell(chosen.name)} | tr -d '\\n'; printf '%s' ${quoteForShell(after)}) | ${target} -d @-`;
    return;
  }
  byId("curl").textContent = `${target} -d ${quoteForShell(JSON.stringify(asked))}`;
}

byId("copy").addEventListener("click", async () => {
  const text = byId("curl").textContent;
  try {
    await navigator.clipboard.writeText(text);
    say("Copied.");
  } catch {
    getSelection().selectAllChildren(byId("curl"));
    say("It is selected: copy it with the keyboard.", "busy");
  }
});

if (byId("item").value) form.requestSubmit();
