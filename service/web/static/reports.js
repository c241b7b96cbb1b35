// Reports: charts, their history, and measuring again with its progress.
import { call, follow } from "./api.js";
import { draw } from "./charts.js";
import { percent, time } from "./format.js";
import { press, say } from "./page.js";

const get = (id) => document.getElementById(id);
const { source } = get("report").dataset;
const ROLES = { holdout: "ink", gallery: "accent", feedback: "cool" };

function showJob(job) {
  const running = job.status === "waiting" || job.status === "running";
  get("job").hidden = !running;
  const bar = get("job-progress");
  if (job.progress === null || job.progress === undefined) bar.removeAttribute("value");
  else bar.value = job.progress;
  const step = job.step ? `${job.step}${job.progress === null ? "" : `, ${percent(Math.round(100 * job.progress) / 100)}`}` : "comparing all pairs";
  get("job-step").textContent = job.status === "waiting" ? "Waiting for other jobs." : `Measuring: ${step}.`;
}

get("recompute")?.addEventListener("click", (event) => press(event.target, async () => {
  say("");
  try {
    await follow(await call("POST", `/v1/reports/consistency?source=${source}`), showJob);
  } finally {
    get("job").hidden = true;
  }
  location.reload();
}));

async function buildHistory() {
  const { entries } = await call("GET", "/v1/reports/consistency/history");
  const kept = entries.filter((entry) => (entry.opis_debiased ?? entry.opis) !== null);
  if (kept.length < 2) return {};
  get("history-card").hidden = false;
  const holdout = kept.find((entry) => entry.source === "holdout" && entry.opis_ci);
  const data = Object.keys(ROLES).map((name) => {
    const rows = kept.filter((entry) => entry.source === name);
    return {
      x: rows.map((entry) => entry.at), y: rows.map((entry) => entry.opis_debiased ?? entry.opis),
      text: rows.map((entry) => `${name} of ${entry.version}, ${time(entry.at)}`), name, mode: "lines+markers",
      meta: { role: ROLES[name] }, marker: { size: 7 }, line: { width: 2 }, hovertemplate: "%{text}: %{y:.4~g}<extra></extra>",
    };
  }).filter((trace) => trace.x.length);
  const shapes = holdout ? [{
    type: "rect", xref: "paper", x0: 0, x1: 1, y0: holdout.opis_ci[0], y1: holdout.opis_ci[1], name: "accent-wash", line: { width: 0 }, layer: "below",
  }] : [];
  return { history: { data, layout: { shapes, showlegend: true, legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom" }, xaxis: { type: "date" }, yaxis: { title: { text: "OPIS" } } } } };
}

try {
  const has = document.querySelector(".plot") !== null;
  if (has) await draw({ ...(await call("GET", `/dashboard/reports/figures?source=${source}`)), ...(await buildHistory()) });
} catch (error) {
  say(error.message, "bad");
}
document.body.dataset.ready = "true";
