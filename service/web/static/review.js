// The review page: one decision at a time, judged with one key.
import { call } from "./api.js";
import { ago, number, time } from "./format.js";
import { element, press, say } from "./page.js";
import { describe, showItem, showUnknown } from "./unknown_pictures.js";

const root = document.getElementById("review");
const { kind } = root.dataset;
const canWrite = root.dataset.canWrite === "true";
const view = { queue: [], skipped: new Set(), now: null, last: null, judged: 0, busy: false };
const byId = (id) => document.getElementById(id);

async function showNext() {
  if (!view.queue.length) {
    const answer = await call("GET", `/v1/review?limit=${Math.min(200, 20 + view.skipped.size)}`);
    view.queue = answer.reviews.filter((review) => !view.skipped.has(review.id));
    view.reason = answer.reason;
  }
  view.now = view.queue.shift() || null;
  byId("pair").hidden = !view.now;
  byId("nothing").hidden = Boolean(view.now);
  if (!view.now) {
    byId("nothing").textContent = view.reason || (view.skipped.size ? "Only those are left that you have skipped: load the page again to see them." : "Every kept query has been judged.");
  } else await showPair(view.now);
  root.dataset.shown = String(Number(root.dataset.shown || 0) + 1);
}

async function showPair(review) {
  const { previews } = await call("POST", "/v1/items/previews", { ids: [review.candidate] });
  byId("query").replaceChildren(showUnknown(review, kind, "large"));
  byId("query-at").textContent = ago(review.at);
  byId("query-at").title = time(review.at);
  byId("query-about").textContent = review.has_thumbnail ? describe(review.metadata) : "";
  byId("label").textContent = review.label;
  byId("candidate").replaceChildren(showItem(previews[0], "large"));
  byId("candidate-about").textContent = previews[0]?.kind === "picture" ? describe(previews[0].metadata) : "";
  byId("kind").textContent = review.kind === "disputed"
    ? "Disputed: somebody has said that the decision was wrong. A second look settles it."
    : `Near the threshold.${view.judged ? ` ${view.judged} judged.` : ""}`;
}

async function judge(verdict) {
  const review = view.now;
  if (!review || view.busy || (!canWrite && verdict !== "skip")) return;
  view.busy = true;
  try {
    if (verdict === "skip") view.skipped.add(review.id);
    else {
      const said = verdict === "not_label" ? { not_label: review.label } : { same: verdict === "same" };
      const answer = await call("POST", "/v1/feedback", { unknown: review.id, ...said });
      view.judged += 1;
      view.last = { review, verdict, id: answer.id };
      reveal(answer);
      if (verdict === "not_label") await showCorrections();
    }
    await showNext();
  } catch (error) {
    say(error.message, "bad");
  } finally { view.busy = false; }
}

function reveal(answer) {
  const { review, verdict } = view.last;
  const said = { same: "the same", different: "different", not_label: `never ${review.label}` }[verdict];
  const score = answer.score === null ? "" : `, at ${number(answer.score)} against ${number(answer.threshold)}`;
  const decided = answer.decision === "match" ? `a match of ${review.label}` : "unknown";
  byId("revealed").textContent = `You said: ${said}. The service had said: ${decided}${score}.`;
  const enroll = byId("enroll");
  enroll.hidden = verdict !== "same";
  enroll.replaceChildren(`Make it an item of ${review.label} `, element("span", { class: "key", "aria-hidden": "true" }, "e"));
  byId("undo").hidden = false;
  byId("last").hidden = false;
}

async function undo() {
  const { last } = view;
  if (!last) return;
  view.last = null;
  await call("DELETE", `/v1/feedback/${encodeURIComponent(last.id)}`);
  if (view.now) view.queue.unshift(view.now);
  view.queue.unshift(last.review);
  view.judged -= 1;
  byId("last").hidden = true;
  await showCorrections();
  await showNext();
  say("Taken back.");
}

async function enroll() {
  const { last } = view;
  if (!last || last.verdict !== "same") return;
  const done = await call("POST", "/v1/unknowns/enroll", { ids: [last.review.id], label: last.review.label });
  byId("enroll").hidden = true;
  byId("undo").hidden = true;
  say(`It is an item of ${done.label} now; the page of unknowns undoes that.`);
}

async function showCorrections() {
  const { feedback } = await call("GET", "/v1/feedback?corrections=true&limit=50");
  byId("corrections").replaceChildren(...(feedback.length ? feedback.map((entry) => element("li", {},
    element("span", { class: "words" }, entry.a === null ? "A query" : element("span", { class: "text" }, entry.a),
      " is never ", element("b", { class: "text" }, entry.not_label), element("span", { class: "faint" }, ` · ${ago(entry.at)}`)),
    canWrite ? element("button", {
      type: "button", class: "button small", onclick: (event) => press(event.target, async () => {
        await call("DELETE", `/v1/feedback/${encodeURIComponent(entry.id)}`);
        await showCorrections();
      }),
    }, "Undo") : null)) : [element("li", { class: "faint" }, "None yet.")]));
}

if (byId("pair")) {
  for (const button of root.querySelectorAll("[data-verdict]")) {
    button.disabled = !canWrite && button.dataset.verdict !== "skip";
    button.addEventListener("click", () => judge(button.dataset.verdict));
  }
  byId("undo").addEventListener("click", (event) => press(event.currentTarget, undo));
  byId("enroll").addEventListener("click", (event) => press(event.currentTarget, enroll));
  const keys = { s: "same", d: "different", n: "not_label", k: "skip" };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
    if (keys[event.key]) judge(keys[event.key]);
    else if (event.key === "u" && !byId("last").hidden && !byId("undo").hidden) press(byId("undo"), undo);
    else if (event.key === "e" && !byId("last").hidden && !byId("enroll").hidden) press(byId("enroll"), enroll);
    else return;
    event.preventDefault();
  });
  Promise.all([showNext(), showCorrections()]).catch((error) => say(error.message, "bad"));
}
