// The slider: every figure of a threshold, read from the curves that the service measured.
import { call } from "./api.js";
import { draw, update } from "./charts.js";
import { count, number, ofThousand, percent } from "./format.js";
import { element, press, say } from "./page.js";

const page = document.getElementById("threshold-page");
const get = (id) => document.getElementById(id);
const WORDS = {
  match: { false: "fpir", missed: "fnir", who: "queries of strangers", wrong: "are matched to someone", known: "queries of the known", lost: "are missed or mistaken for another" },
  verify: { false: "far", missed: "frr", who: "pairs that are not the same", wrong: "are taken to be the same", known: "pairs that are the same", lost: "are turned away" },
};
const NAMES = { far: "FAR", frr: "FRR", fpir: "FPIR", fnir: "FNIR" };
const ROLES = { far: "warm", frr: "cool", fpir: "warm", fnir: "cool" };

let curve;
let words;
let at = 0;
let replaced = null; // the point that decided before the one that was just taken

/** "fpir-3%-evidence-proven" -> "3% proven": on the slider there is little room. */
function shortName(name) {
  const rung = /^(?:far|fpir)-([\d.]+%)(?:-.+)?-(proven|estimated)$/.exec(name);
  return rung ? `${rung[1]} ${rung[2]}` : name;
}

/** The expected cost of a query at a position of the grid, in missed known ones. */
function costAt(position) {
  const wrong = curve[words.false];
  const lost = curve[words.missed];
  if (!wrong || !lost) return null;
  const { share, weight } = readCosts();
  return share * weight * wrong[position] + (1 - share) * lost[position];
}

function readCosts() {
  const share = Math.min(Math.max(Number(get("share").value) / 100 || 0.5, 0.001), 0.999);
  const weight = Math.max(Number(get("weight").value) || 1, 1e-6);
  return { share, weight };
}

function findCheapest() {
  let best = 0;
  curve.thresholds.forEach((_, position) => { if (costAt(position) < costAt(best)) best = position; });
  return best;
}

function showSentence() {
  const [wrong, lost] = [curve[words.false], curve[words.missed]];
  const upper = curve[`${words.false}_upper`];
  const parts = [];
  if (wrong) {
    const most = upper ? `, at most ${ofThousand(upper[at])},` : "";
    parts.push("Of 1,000 ", words.who, " about ", element("b", {}, ofThousand(wrong[at])), `${most} ${words.wrong}. `);
  }
  if (lost) parts.push("Of 1,000 ", words.known, " about ", element("b", {}, ofThousand(lost[at])), ` ${words.lost}.`);
  get("sentence").replaceChildren(...parts);
}

function showFigures() {
  for (const tile of get("figures").querySelectorAll("[data-rate]")) {
    const rate = tile.dataset.rate;
    const [figure, aside] = [tile.querySelector(".figure"), tile.querySelector(".aside")];
    if (rate === "cost") {
      const cost = costAt(at);
      figure.textContent = number(cost, 3);
      continue;
    }
    const values = curve[rate];
    tile.hidden = !values;
    figure.textContent = percent(values && values[at]);
    const upper = curve[`${rate}_upper`];
    const plain = { far: "of pairs of two classes", frr: "of pairs of one class", fpir: "of strangers", fnir: "of the known" }[rate];
    aside.textContent = upper ? `${plain}; at most ${percent(upper[at])}` : plain;
  }
}

function showClasses() {
  const rates = [...new Set(curve.classes_over.map((row) => row.rate))];
  const order = [words.false, words.missed].filter((rate) => rates.includes(rate));
  const levels = [...new Set(curve.classes_over.map((row) => row.level))];
  const find = (rate, level) => curve.classes_over.find((row) => row.rate === rate && row.level === level);
  get("classes").tHead.rows[0].replaceChildren(
    element("th", { scope: "col" }, "more than"),
    ...order.map((rate) => element("th", { scope: "col", class: "n" }, NAMES[rate])),
  );
  get("classes").tBodies[0].replaceChildren(...levels.map((level) => element(
    "tr", {}, element("td", {}, percent(level)),
    ...order.map((rate) => {
      const row = find(rate, level);
      return element("td", { class: "n", "data-rate": rate, "data-level": level }, `${count(row.classes[at])} of ${count(row.n_classes)}`);
    }),
  )));
}

function showGroups() {
  if (!curve.groups.length) return;
  get("groups-card").hidden = false;
  const aim = Number(get("aim").value);
  const rates = [words.false, words.missed, ...["far", "frr", "fpir", "fnir"].filter((rate) => ![words.false, words.missed].includes(rate))]
    .filter((rate) => curve.groups.some((group) => group[rate]));
  get("groups").tHead.replaceChildren(element(
    "tr", {}, element("th", { scope: "col" }, "group"), element("th", { scope: "col", class: "n" }, "items"),
    ...rates.map((rate) => element("th", { scope: "col", class: "n" }, NAMES[rate])),
  ));
  get("groups").tBodies[0].replaceChildren(...curve.groups.map((group) => element(
    "tr", {}, element("td", { class: "label" }, `${group.column} = ${group.value}`), element("td", { class: "n" }, count(group.n_items)),
    ...rates.map((rate) => {
      const value = group[rate] ? group[rate][at] : null;
      const over = rate === words.false && value > aim;
      return element("td", { class: over ? "n over" : "n", title: over ? "above the mark" : null }, percent(value));
    }),
  )));
}

function showStanding() {
  const here = curve.points.filter((point) => point.index === at);
  const parts = here.flatMap((point) => [
    element("b", { class: "text" }, point.name),
    element("span", { class: point.active ? "badge" : "badge plain" }, point.active ? "active now" : point.status),
  ]);
  if (replaced && here.some((point) => point.active) && !get("activate").disabled) {
    const before = curve.points.find((point) => point.id === replaced.id);
    if (before && !before.active) parts.push(element("button", { type: "button", class: "button small", onclick: (event) => usePoint(event.target, before) }, `Back to ${before.name}`));
  }
  const activate = here.find((point) => !point.active);
  if (activate && !get("activate").disabled) {
    parts.push(element("button", { type: "button", class: "button small", onclick: (event) => usePoint(event.target, activate) }, `Activate ${activate.name}`));
  }
  get("standing").replaceChildren(...(parts.length ? parts : [describeBetween()]));
}

function describeBetween() {
  const active = curve.points.find((point) => point.active);
  if (active) return `Between operating points; ${active.name} decides, at ${number(active.threshold, 5)}.`;
  return curve.points.length ? "Between operating points; none decides." : "There is no operating point yet.";
}

function showMarks() {
  const last = curve.thresholds.length - 1;
  const best = costAt(0) === null ? null : findCheapest();
  const marks = curve.points.map((point) => ({ ...point, kind: point.active ? " active" : "" }));
  if (best !== null) marks.push({ index: best, name: "least cost", kind: " best" });
  marks.sort((a, b) => a.index - b.index);
  const room = get("rungs").clientWidth / last;
  const important = (mark) => mark.kind !== "";
  const placed = new Map();
  // labels that matter get their room first; of the others those that fit into one of two lines
  for (const mark of [...marks].sort((a, b) => important(b) - important(a))) {
    const half = Math.min(shortName(mark.name).length * 6.2 + 8, 150) / 2;
    const middle = Math.min(Math.max(mark.index * room, half), last * room - half);
    mark.shift = middle - mark.index * room;
    const [from, to] = [middle - half, middle + half];
    const line = [0, 1].find((candidate) => ![...placed.values()].some((other) => other.line === candidate && other.from < to && from < other.to));
    placed.set(mark, { line, from, to });
  }
  get("rungs").replaceChildren(...marks.map((mark) => {
    const { line } = placed.get(mark);
    const style = line === undefined ? " bare" : line === 1 ? " low" : "";
    const button = element(
      "button", { type: "button", class: `rung${mark.kind}${style}`, title: mark.name, "aria-label": `Move to ${mark.name}`, onclick: () => moveTo(mark.index) },
      element("span", {}, shortName(mark.name)),
    );
    if (line !== undefined) button.firstChild.style.left = `${mark.shift}px`;
    button.style.left = `${(100 * mark.index) / last}%`;
    return button;
  }));
  const cost = best === null ? "" : `threshold ${number(curve.thresholds[best])}, cost ${number(costAt(best), 3)}`;
  get("cheapest-note").textContent = cost;
  get("cheapest").disabled = best === null;
}

function buildFigure() {
  const x = curve.thresholds;
  const shown = [words.false, words.missed].filter((rate) => curve[rate]);
  const floor = 1e-4;
  const data = shown.map((rate) => ({
    x, y: curve[rate].map((value) => (value > floor ? value : null)), name: `${NAMES[rate]} (${rate === words.false ? words.wrong : "missed"})`,
    mode: "lines", meta: { role: ROLES[rate] }, line: { width: 2.4 }, hovertemplate: "%{y:.2%}<extra></extra>",
  }));
  const marks = curve.points.map((point) => ({
    type: "line", x0: point.threshold, x1: point.threshold, y0: 0, y1: 1, yref: "paper", name: point.active ? "accent" : "faint",
    line: { width: point.active ? 2 : 1.2, dash: "dash" },
  }));
  const here = { type: "line", x0: x[at], x1: x[at], y0: 0, y1: 1, yref: "paper", name: "ink", line: { width: 2 } };
  return {
    data,
    layout: {
      shapes: [...marks, here], hovermode: "x unified", showlegend: true,
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom" },
      xaxis: { title: { text: "threshold (score)" }, tickformat: ".2f", hoverformat: ".4f" },
      yaxis: { type: "log", range: [Math.log10(floor), 0], tickvals: [1e-4, 1e-3, 1e-2, 1e-1, 1], ticktext: ["0.01 %", "0.1 %", "1 %", "10 %", "100 %"], title: { text: "share" } },
    },
  };
}

let waiting = false;
function show({ marks = false } = {}) {
  const slider = get("slider");
  slider.value = at;
  const value = number(curve.thresholds[at], 5);
  slider.setAttribute("aria-valuetext", `threshold ${value}`);
  get("value").textContent = value;
  showSentence();
  showFigures();
  showClasses();
  showGroups();
  showStanding();
  if (marks) showMarks();
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    update("tradeoff", buildFigure());
  });
}

function moveTo(position) {
  at = Math.min(Math.max(position, 0), curve.thresholds.length - 1);
  show();
}

async function usePoint(button, point) {
  await press(button, async () => {
    const before = curve.points.find((one) => one.active);
    await call("POST", `/v1/operating-points/${encodeURIComponent(point.id)}/activate`);
    replaced = before;
    say(`${point.name} decides from now on.`);
    await load(point.threshold);
  });
}

async function choose(button, activate) {
  await press(button, async () => {
    const name = get("point-name").value.trim();
    const body = { endpoint: words.endpoint, threshold: curve.thresholds[at], activate };
    if (name) body.name = name;
    const { point } = await call("POST", "/v1/operating-points/choose", body);
    if (activate) replaced = curve.points.find((one) => one.active);
    get("point-name").value = "";
    say(activate ? `${point.name} decides from now on, at ${number(point.threshold, 5)}.` : `${point.name} is kept; it decides nothing until it is activated.`);
    await load(point.threshold);
  });
}

async function load(threshold) {
  curve = await call("GET", `/v1/operating-points/tradeoff?endpoint=${words.endpoint}`);
  const wanted = threshold ?? curve.active_threshold;
  const nearest = (value) => curve.thresholds.reduce((best, one, position) => (Math.abs(one - value) < Math.abs(curve.thresholds[best] - value) ? position : best), 0);
  at = wanted === null ? findCheapest() : nearest(wanted);
  const slider = get("slider");
  slider.max = curve.thresholds.length - 1;
  slider.disabled = false;
  get("method").textContent = `Figures: ${curve.method}. ${curve.gallery && words.endpoint === "match" ? `For a gallery of ${count(curve.gallery.classes)} classes (${count(curve.gallery.items)} items). ` : ""}Bounds hold with ${percent(curve.confidence)} confidence.`;
  await draw({ tradeoff: buildFigure() });
  show({ marks: true });
}

if (page) {
  words = { ...WORDS[page.dataset.endpoint], endpoint: page.dataset.endpoint };
  try {
    await load();
    get("slider").addEventListener("input", (event) => moveTo(Number(event.target.value)));
    for (const id of ["share", "weight"]) get(id).addEventListener("input", () => show({ marks: true }));
    get("aim").addEventListener("change", showGroups);
    get("cheapest").addEventListener("click", () => moveTo(findCheapest()));
    get("activate").addEventListener("click", (event) => choose(event.target, true));
    get("keep").addEventListener("click", (event) => choose(event.target, false));
    addEventListener("resize", showMarks);
  } catch (error) {
    get("sentence").textContent = error.message;
  }
}
