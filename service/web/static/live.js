// The live page: asks for series and alerts again and again, as long as somebody looks.
import { call } from "./api.js";
import { draw } from "./charts.js";
import { ago, count, number, percent, time } from "./format.js";
import { buildFigures } from "./live_charts.js";
import { element, press, say } from "./page.js";

const EVERY = 5_000; // ms between looks; a longer range changes less often
const NOTHING = {
  decisions: "No decision in this time.", scores: "No decision in this time.", unknown: "No decision in this time.",
  drift: "Not measured yet: it takes some 200 queries.", stability: "Not measured yet: it takes some 200 queries.",
  latency: "No decision or search in this time.",
};
const STATES = { ok: "badge", pending: "badge plain", firing: "badge warn", unmeasured: "badge plain" };
const view = { seconds: 3600, phrase: "the last hour", paused: false, timer: 0, alerts: "", looking: null };
const alertsPlace = document.getElementById("alerts");
const canWrite = alertsPlace.dataset.canWrite === "true";

async function look() {
  clearTimeout(view.timer);
  view.looking?.abort();
  const looking = view.looking = new AbortController();
  const { signal } = looking;
  try {
    const [series, alerts] = await Promise.all([
      call("GET", `/v1/monitoring?seconds=${view.seconds}`, undefined, { signal }), call("GET", "/v1/alerts", undefined, { signal }),
    ]);
    tell(series, alerts.rules);
    showAlerts(alerts);
    showRules(alerts.rules, series.now);
    showFeedback(series.now);
    await showCharts(series);
    document.getElementById("updated").textContent = `as of ${new Date().toLocaleTimeString("en-GB")}`;
    document.body.dataset.looked = String(Number(document.body.dataset.looked || 0) + 1);
    if (document.getElementById("said").dataset.away) say("");
    delete document.getElementById("said").dataset.away;
  } catch (error) {
    if (error.name === "AbortError") return;
    say(error.message, "bad");
    document.getElementById("said").dataset.away = "true";
  }
  if (view.looking === looking) wait();
}

function wait() {
  clearTimeout(view.timer);
  if (!view.paused && !document.hidden) view.timer = setTimeout(look, view.seconds > 86_400 ? 12 * EVERY : EVERY);
}

const sum = (values) => values.reduce((total, value) => total + value, 0);

function tell(series, rules) {
  const all = sum(series.match.decisions);
  const pairs = sum(series.verify.decisions);
  const parts = [];
  const heading = view.phrase[0].toUpperCase() + view.phrase.slice(1);
  if (all) parts.push(`${heading}: ${count(all)} decisions, ${percent(sum(series.match.unknown) / all)} of them unknown.`);
  else parts.push(`${heading}: no decision of /v1/match.`);
  if (pairs) parts.push(`${count(pairs)} pairs were verified.`);
  const states = Object.fromEntries(rules.map((rule) => [rule.rule, rule.state]));
  const calibrated = { ok: "Scores are distributed as calibrated.", pending: "Scores may not be distributed as calibrated.", firing: "Scores are not distributed as calibrated." };
  const scores = ["firing", "pending", "ok"].find((state) => [states["score-drift"], states["pair-score-drift"]].includes(state));
  parts.push(calibrated[scores] || "Scores have not been compared with the calibration yet.");
  const drifts = [states["query-drift"], states["gallery-drift"]];
  if (drifts.includes("firing")) parts.push(drifts[0] === "firing" ? "Queries have drifted." : "The gallery has drifted.");
  else if (drifts.some((state) => state === "ok" || state === "pending")) parts.push(scores === "firing" ? "Vectors have not drifted." : "No drift.");
  const firing = rules.filter((rule) => rule.state === "firing").length;
  if (firing) parts.push(firing === 1 ? "One alert fires." : `${count(firing)} alerts fire.`);
  const story = document.getElementById("story");
  const text = parts.join(" ");
  if (story.textContent !== text) story.textContent = text;
}

async function showCharts(series) {
  const figures = buildFigures(series);
  const some = {};
  for (const [id, figure] of Object.entries(figures)) {
    const plot = document.getElementById(id);
    if (figure) some[id] = figure;
    else if (plot.classList.contains("js-plotly-plot")) some[id] = { data: [], layout: { xaxis: {}, yaxis: {} } };
    else plot.replaceChildren(element("p", { class: "empty" }, NOTHING[id]));
  }
  document.getElementById("decisions").setAttribute("aria-label", `Decisions in ${view.phrase}: ${count(sum(series.match.decisions))}, unknown ${count(sum(series.match.unknown))}`);
  await draw(some);
}

function showAlerts({ alerts }) {
  const text = JSON.stringify([view.seconds > 0, alerts]);
  if (text === view.alerts) return; // what somebody is typing stays
  view.alerts = text;
  const firing = alerts.filter((alert) => alert.state === "firing");
  alertsPlace.replaceChildren(...(firing.length ? firing.map(showAlert) : [element("p", { class: "card calm" }, "No alert fires.")]));
  const over = alerts.filter((alert) => alert.state !== "firing");
  const past = document.getElementById("past");
  past.hidden = !over.length;
  past.querySelector("summary").textContent = `Alerts that are over (${over.length})`;
  past.querySelector("tbody").replaceChildren(...over.slice(0, 50).map((alert) => element(
    "tr", {}, element("td", {}, alert.rule), element("td", {}, time(alert.started_at)), element("td", {}, time(alert.resolved_at)),
    element("td", { class: "text" }, alert.acknowledged_by ? `${alert.acknowledged_by}${alert.note ? `: ${alert.note}` : ""}` : "–"),
    element("td", { class: "text" }, alert.detail),
  )));
}

function showAlert(alert) {
  const seen = alert.acknowledged_at !== null;
  const head = element("header", {}, element("h2", {}, alert.summary), element("span", { class: seen ? "badge plain" : "badge warn" }, `${alert.rule} · since ${ago(alert.started_at)}`));
  const card = element("article", { class: seen ? "card alert seen" : "card alert" }, head, element("p", { class: "text" }, alert.detail), element("p", { class: "todo" }, alert.todo));
  if (seen) {
    const who = `Seen by ${alert.acknowledged_by}, ${time(alert.acknowledged_at)}${alert.note ? `: ${alert.note}` : "."}`;
    card.append(element("p", { class: "why text" }, who));
    return card;
  }
  const note = element("input", { type: "text", class: "note", maxlength: 500, id: `note-${alert.id}`, placeholder: "What is being done about it", disabled: !canWrite });
  const button = element("button", { type: "button", class: "button small", disabled: !canWrite }, "I have seen it");
  button.addEventListener("click", () => press(button, async () => {
    await call("POST", `/v1/alerts/${encodeURIComponent(alert.id)}/acknowledge`, { note: note.value.trim() || null });
    say("Noted: everybody who opens this page sees that you know of it.");
    await look();
  }));
  card.append(element("div", { class: "actions" }, element("label", { class: "visually-hidden", for: `note-${alert.id}` }, `Note about ${alert.rule}`), note, button, canWrite ? null : element("span", { class: "why" }, "This takes a key of the scope write.")));
  return card;
}

function showRules(rules, now) {
  const readings = Object.fromEntries(now.map((reading) => [reading.signal, reading]));
  const rows = rules.map((rule) => {
    const reading = readings[rule.signal];
    return element(
      "tr", { "data-rule": rule.rule }, element("td", {}, element("b", {}, rule.rule)), element("td", {}, element("span", { class: STATES[rule.state] }, rule.state)),
      element("td", { class: "n" }, number(reading?.value, 3)), element("td", { class: "n" }, number(reading?.lower, 3)), element("td", { class: "n" }, number(rule.above, 3)),
      element("td", { class: "text" }, reading?.detail || "Not measured yet."),
    );
  });
  const body = document.querySelector("#rules tbody");
  if (body.textContent !== rows.map((row) => row.textContent).join("")) body.replaceChildren(...rows);
}

function showFeedback(now) {
  const shown = [["feedback_false_matches", "false matches"], ["feedback_misses", "missed matches"]].flatMap(([signal, name]) => {
    const reading = now.find((other) => other.signal === signal);
    return reading?.value == null ? [] : [element("div", {}, element("dt", {}, `${name}, ${count(reading.n)} judged`), element("dd", {}, `${percent(reading.value)}, ${percent(reading.lower)} to ${percent(reading.upper)}`))];
  });
  document.getElementById("feedback").hidden = !shown.length;
  document.querySelector("#feedback dl").replaceChildren(...shown);
}

for (const button of document.querySelectorAll(".ranges button")) {
  button.addEventListener("click", () => {
    view.seconds = Number(button.dataset.seconds);
    view.phrase = button.dataset.phrase;
    document.querySelectorAll(".ranges button").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    look();
  });
}
const pause = document.getElementById("pause");
pause.addEventListener("click", () => {
  view.paused = !view.paused;
  pause.setAttribute("aria-pressed", String(view.paused));
  pause.textContent = view.paused ? "Go on" : "Pause";
  if (view.paused) clearTimeout(view.timer);
  else look();
});
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(view.timer) : !view.paused && look()));
look();
