// Labels to look at: the findings of the last audit, and a button for another.
import { call, follow } from "./api.js";
import { ago, count, number, percent, shorten } from "./format.js";
import { element, press, say } from "./page.js";
import { showItem } from "./unknown_pictures.js";

const KINDS = {
  other_label_nearer: ["nearer to another label", "warn"],
  copy_of_other_label: ["copy under another label", "warn"],
  near_copy_of_other_label: ["near copy under another label", "warn"],
  outlier: ["near to nothing", "plain"],
};
const PAGE = 25;
const find = (id) => document.getElementById(id);
const shown = { kind: null, next: 0 };

if (find("story").dataset.audited === "true") await load();
find("audit").addEventListener("click", () => press(find("audit"), audit));
find("more").addEventListener("click", () => press(find("more"), show));

async function load() {
  shown.next = 0;
  find("findings").replaceChildren();
  try {
    await show();
  } catch (error) {
    say(error.message, "bad");
  }
}

async function audit() {
  const job = await call("POST", "/v1/labels/audit");
  find("progress").hidden = false;
  try {
    await follow(job, (now) => {
      if (now.status === "failed") find("job").textContent = "";
      const part = now.progress ?? null;
      if (part === null) find("progress").removeAttribute("value"); else find("progress").value = part;
      find("job").textContent = now.step ? `${now.step}${part === null ? "" : `: ${percent(part)}`}` : `${now.status} …`;
    });
    find("audit").textContent = "Audit again";
    await load();
    say("The labels were audited.");
  } finally {
    find("progress").hidden = true;
  }
}

async function show() {
  const kind = shown.kind ? `&kind=${shown.kind}` : "";
  const page = await call("GET", `/v1/labels/audit?limit=${PAGE}&offset=${shown.next}${kind}`);
  if (shown.next === 0) describe(page);
  const ids = [...new Set(page.findings.flatMap((one) => [one.id, one.nearest_id]).filter((id) => id !== null))];
  const previews = new Map();
  for (let first = 0; first < ids.length; first += 50) {
    const answer = await call("POST", "/v1/items/previews", { ids: ids.slice(first, first + 50) });
    for (const preview of answer.previews) previews.set(preview.id, preview);
  }
  find("findings").append(...page.findings.map((one) => draw(one, previews)));
  find("more").hidden = page.next_offset === null;
  shown.next = page.next_offset ?? shown.next;
}

function describe(page) {
  const some = Object.entries(page.counts).filter(([, n]) => n);
  find("story").textContent = some.length
    ? `Of ${count(page.items)} items of ${count(page.labels)} labels, ${some.map(([kind, n]) => `${count(n)} ${n === 1 ? "is" : "are"} ${KINDS[kind][0].startsWith("near to") || KINDS[kind][0].startsWith("nearer") ? "" : "a "}${KINDS[kind][0]}`).join(", ")}.`
    : `All ${count(page.items)} items are nearest to their own label.`;
  find("job").textContent = `Audited ${ago(page.created_at)}, by ${page.threshold_from} (${number(page.threshold, 4)})${page.changed_since ? "; the gallery has changed since" : ""}.`;
  find("export").hidden = false;
  const kinds = find("kinds");
  kinds.hidden = some.length < 2;
  const choose = (kind) => { shown.kind = kind; load(); };
  kinds.replaceChildren(...[[null, "all"], ...some.map(([kind]) => [kind, KINDS[kind][0]])].map(([kind, text]) => element(
    "button", { type: "button", "aria-pressed": String(shown.kind === kind), onclick: () => choose(kind) }, text,
  )));
  find("spellings").hidden = !page.spellings.length;
  find("spellings").querySelector("ul").replaceChildren(...page.spellings.map((group) => element(
    "li", { class: "text" }, ...group.flatMap((label, k) => [k ? " = " : "", element("b", {}, shorten(label, 80))]),
  )));
}

function draw(finding, previews) {
  const made = find("finding").content.firstElementChild.cloneNode(true);
  made.querySelector(".rank").textContent = finding.rank;
  fill(made.querySelector(".own"), finding.id, finding.label, previews);
  const other = made.querySelector(".other");
  if (finding.nearest_id === null) other.replaceChildren(); else fill(other, finding.nearest_id, finding.nearest_label, previews);
  made.querySelector(".badges").append(...finding.kinds.map((kind) => element("span", { class: `badge ${KINDS[kind][1]}` }, KINDS[kind][0])));
  made.querySelector(".reason-text").textContent = finding.reason;
  return made;
}

function fill(side, id, label, previews) {
  side.href = `/dashboard/classes/${encodeURIComponent(label)}`;
  const preview = previews.get(id);
  if (!preview || preview.kind === "picture" || preview.text) side.querySelector(".shown").append(showItem(preview));
  side.querySelector("b").textContent = label;
  side.querySelector("small").textContent = id;
}
