// Versions of the model: load, compare, switch and roll back.
import { call, follow } from "./api.js";
import { draw } from "./charts.js";
import { count, number, percent } from "./format.js";
import { element, press, say } from "./page.js";
import { showItem } from "./unknown_pictures.js";

const get = (id) => document.getElementById(id);
const path = (version, rest) => `/v1/models/${encodeURIComponent(version)}/${rest}`;
const NAMES = {
  recall_at_1: ["recall@1", percent], map_at_r: ["MAP@R", percent], frr: ["FRR at its own threshold", percent],
  fnir: ["FNIR at as high an FPIR", percent], eer: ["EER", percent], opis_logfar_debiased: ["OPIS, by FAR", (value) => number(value, 3)],
};

async function activate(version, button) {
  await press(button, async () => {
    let answer;
    try {
      answer = await call("POST", path(version, "activate"), { allow_missing: false });
    } catch (error) {
      if (error.status !== 409 || !error.message.includes("allow_missing")) throw error;
      if (!confirm(`${error.message}\n\nSwitch all the same? These items are then not found until they are written for it.`)) return;
      answer = await call("POST", path(version, "activate"), { allow_missing: true });
    }
    say(`${answer.active} answers from now on; ${answer.previous} stays loaded, to go back to.`);
    setTimeout(() => location.reload(), 900);
  });
}

async function load(version, button) {
  await press(button, async () => {
    say(`Loading ${version}: its files are verified and its gallery is probed.`, "busy");
    await follow(await call("POST", "/v1/models", { version }));
    location.reload();
  });
}

async function compare(version, button) {
  await press(button, async () => {
    say(`Comparing ${version} with the active model on the items that both hold.`, "busy");
    await follow(await call("POST", path(version, "compare")));
    say("");
    await showComparison(version, await call("GET", path(version, "comparison")));
  });
}

function judge(row) {
  if (row.difference === null) return ["not known", "faint"];
  if (row.interval && row.interval[0] <= 0 && row.interval[1] >= 0) return ["no difference beyond chance", "soft"];
  const better = row.difference > 0 === row.higher_is_better;
  if (row.difference === 0) return ["the same", "soft"];
  return better ? ["better", "good"] : ["worse", "bad"];
}

async function showComparison(version, comparison) {
  const { flips } = comparison;
  get("comparison-title").textContent = `${version} against the active model`;
  get("comparison-caption").textContent = `On ${count(comparison.n_items)} items of ${count(comparison.n_classes)} classes that both hold, each at its own 1:1 threshold. ${comparison.reasons.join(" ")}`;
  get("flips").textContent = `It decides ${count(flips.genuine_gained + flips.impostor_gained)} pairs rightly that the active model gets wrong, and gets ${count(flips.genuine_lost + flips.impostor_lost)} wrong that the active model decides rightly: ${count(flips.genuine_lost)} that are the same, ${count(flips.impostor_lost)} that are not.`;
  get("differences").tBodies[0].replaceChildren(...comparison.differences.map((row) => {
    const [name, format] = NAMES[row.name] || [row.name, number];
    const [verdict, kind] = judge(row);
    const interval = row.interval ? ` (${format(row.interval[0])} to ${format(row.interval[1])})` : "";
    return element(
      "tr", {}, element("td", { class: "label" }, name), element("td", { class: "n" }, format(row.a)), element("td", { class: "n" }, format(row.b)),
      element("td", { class: "n" }, row.difference === null ? "–" : `${format(row.difference)}${interval}`), element("td", { class: kind }, verdict),
    );
  }));
  await showExamples(flips);
  const found = comparison.compatibility;
  get("compatibility").textContent = !found ? "" : found.compatible
    ? `New queries may search the gallery of the active model: recall@1 ${percent(found.recall_at_1_new_old)}, before ${percent(found.recall_at_1_old_old)}.`
    : `The gallery must be embedded again: new queries find the right class in the old gallery in ${percent(found.recall_at_1_new_old)}, old ones in ${percent(found.recall_at_1_old_old)}.`;
  get("comparison").hidden = false;
  get("comparison").scrollIntoView({ behavior: "smooth", block: "start" });
}

async function showExamples(flips) {
  const kinds = [["No longer taken to be the same, though they are", flips.examples_genuine_lost], ["Newly taken to be the same, though they are not", flips.examples_impostor_lost]];
  const pairs = kinds.flatMap(([, examples]) => examples.slice(0, 6));
  const ids = [...new Set(pairs.flatMap((pair) => [pair.a, pair.b]))];
  const previews = {};
  if (ids.length) {
    const answer = await call("POST", "/v1/items/previews", { ids: ids.slice(0, 100) });
    for (const preview of answer.previews) previews[preview.id] = preview;
  }
  get("examples").replaceChildren(...kinds.filter(([, examples]) => examples.length).flatMap(([title, examples]) => [
    element("h3", {}, title),
    element("ul", { class: "pictures" }, ...examples.slice(0, 6).map((pair) => element(
      "li", { class: "pair" }, element("span", { class: "pair-pictures" }, showItem(previews[pair.a]), showItem(previews[pair.b])),
      element("small", { class: "faint text" }, pair.label_a === pair.label_b ? pair.label_a : `${pair.label_a} / ${pair.label_b}`),
    ))),
  ]));
}

function buildFigure(versions, traces, title) {
  return {
    data: traces.filter((trace) => trace.y.some((value) => value !== null)),
    layout: {
      showlegend: traces.length > 1, legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom" }, hovermode: "x unified",
      xaxis: { type: "date" }, yaxis: { title: { text: title }, rangemode: "tozero", tickformat: title === "share" ? ".1%" : "" },
    },
  };
}

async function showHistory() {
  const { models } = await call("GET", "/v1/models");
  const versions = models.filter((model) => model.figures).sort((a, b) => a.created_at.localeCompare(b.created_at));
  if (versions.length < 2) return;
  get("history").hidden = false;
  const x = versions.map((version) => version.created_at);
  const text = versions.map((version) => version.version);
  const trace = (name, role, read) => ({ x, y: versions.map(read), text, name, mode: "lines+markers", meta: { role }, marker: { size: 8 }, line: { width: 2 }, hovertemplate: "%{text}: %{y:.3~%}" });
  const opis = { ...trace("OPIS", "accent", ({ figures }) => figures.opis), hovertemplate: "%{text}: %{y:.4~g}<extra></extra>" };
  const reach = (end) => versions.map(({ figures }) => (figures.opis_ci && figures.opis !== null ? Math.abs(figures.opis_ci[end] - figures.opis) : 0));
  opis.error_y = { type: "data", symmetric: false, array: reach(1), arrayminus: reach(0), thickness: 1.4 };
  await draw({
    errors: buildFigure(versions, [
      trace("EER", "warm", ({ figures }) => figures.eer), trace("FNIR", "cool", ({ figures }) => figures.fnir),
      trace("nearest is of another class", "accent", ({ figures }) => (figures.recall_at_1 === null ? null : 1 - figures.recall_at_1)),
    ], "share"),
    unevenness: buildFigure(versions, [opis], "OPIS"),
  });
}

const ACTIONS = { load, compare, activate };
get("versions").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { version } = button.closest("tr").dataset;
  for (const [name, act] of Object.entries(ACTIONS)) if (button.classList.contains(name)) act(version, button);
});
get("back")?.addEventListener("click", (event) => activate(get("versions").dataset.previous, event.target));
await showHistory();
document.body.dataset.ready = "true";
