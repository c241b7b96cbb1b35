// The charts of the live page: from series to figures whose colours are names of roles.

const NARROW_BINS = 0.002; // of the scores; emptier bins at the ends are left out
const base = (y = {}) => ({
  showlegend: true, legend: { orientation: "h", x: 0, y: 1.14 }, hovermode: "x unified", barmode: "stack", bargap: 0.12,
  xaxis: { type: "date" }, yaxis: { rangemode: "tozero", ...y },
});

const line = (name, role, x, y, { dash = "solid", fill = false } = {}) => ({
  name, x, y, type: "scatter", mode: y.filter((value) => value !== null).length > 1 ? "lines" : "markers",
  connectgaps: false, cliponaxis: false, line: { dash, width: 2 }, marker: { size: 7 }, meta: { role, fill }, ...(fill ? { fill: "tozeroy" } : {}),
});

const bars = (name, role, x, y) => ({ name, x, y, type: "bar", marker: {}, meta: { role } });

/** A time of the reader's own zone without one, as plotly wants it. */
function local(iso) {
  const at = new Date(iso);
  return new Date(at.getTime() - 60_000 * at.getTimezoneOffset()).toISOString().slice(0, 19);
}

function decisions({ times, match }) {
  const matched = match.decisions.map((all, place) => all - match.unknown[place]);
  return { data: [bars("match", "accent", times, matched), bars("unknown", "warm", times, match.unknown)], layout: base() };
}

function unknown({ times, match }) {
  const share = match.decisions.map((all, place) => (all ? match.unknown[place] / all : null));
  return {
    data: [line("unknown", "warm", times, share, { fill: true })],
    layout: { ...base({ tickformat: ".0%", range: [0, 1] }), showlegend: false },
  };
}

function latency({ times, latency: quantiles }) {
  return {
    data: [
      line("99 of 100", "warm", times, quantiles.p99), line("95 of 100", "cool", times, quantiles.p95),
      line("half", "accent", times, quantiles.p50),
    ],
    layout: base({ ticksuffix: " ms" }),
  };
}

function drift({ times, measurements }) {
  return {
    data: [
      line("queries", "accent", times, measurements.query_drift),
      line("gallery", "cool", times, measurements.gallery_drift, { dash: "dot" }),
    ],
    layout: {
      ...base({ range: [0.4, 1.02], rangemode: "normal" }),
      shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 0.5, y1: 0.5, name: "faint", line: { dash: "dash", width: 1 } }],
    },
  };
}

function stability({ times, measurements }) {
  const values = measurements.score_stability;
  const highest = Math.max(0.3, ...values.filter((value) => value !== null).map((value) => 1.15 * value));
  const at = (y, name) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, name, line: { dash: "dash", width: 1 } });
  return {
    data: [line("index", "accent", times, values)],
    layout: { ...base({ range: [0, highest] }), showlegend: false, shapes: [at(0.1, "faint"), at(0.25, "warm")] },
  };
}

function scores({ scores: histograms }) {
  const shown = histograms.find((histogram) => histogram.endpoint === "match") || histograms[0];
  if (!shown) return null;
  const total = shown.counts.reduce((sum, value) => sum + value, 0);
  if (!total) return null;
  const { edges } = shown;
  const weight = shown.counts.map((value, place) => Math.max(value, shown.expected?.[place] || 0));
  const used = weight.flatMap((value, place) => (value > NARROW_BINS * total ? [place] : []));
  const [first, last] = [Math.max(0, used[0] - 1), Math.min(edges.length - 2, used[used.length - 1] + 1)];
  const places = Array.from({ length: last - first + 1 }, (_, number) => first + number);
  const middle = places.map((place) => (edges[place] + edges[place + 1]) / 2);
  const data = [{
    name: "observed", type: "bar", x: middle, y: places.map((place) => shown.counts[place] / total), marker: {},
    width: places.map((place) => edges[place + 1] - edges[place]), meta: { role: "accent" },
  }];
  if (shown.expected) {
    data.push({
      name: "expected", type: "scatter", mode: "lines", x: middle, y: places.map((place) => shown.expected[place] / total),
      line: { shape: "hvh", width: 2 }, meta: { role: "cool" },
    });
  }
  return {
    data,
    layout: {
      ...base({ tickformat: ".0%" }), bargap: 0.04, xaxis: { title: { text: "score" } },
      shapes: [{ type: "line", yref: "paper", y0: 0, y1: 1, x0: shown.threshold, x1: shown.threshold, name: "warm", line: { dash: "dash", width: 1.5 } }],
      annotations: [{ x: shown.threshold, y: 0.97, yref: "paper", text: "threshold", showarrow: false, xanchor: "right", name: "warm" }],
    },
  };
}

/** Figures by the id of their element; null for a chart that has nothing to show. */
export function buildFigures(series) {
  const shown = { ...series, times: series.times.map(local) };
  const some = (values) => values.some((value) => value !== null && value !== 0);
  const { measurements } = series;
  return {
    decisions: some(series.match.decisions) ? decisions(shown) : null,
    scores: scores(shown),
    unknown: some(series.match.decisions) ? unknown(shown) : null,
    drift: some([...measurements.query_drift, ...measurements.gallery_drift]) ? drift(shown) : null,
    stability: some(measurements.score_stability) ? stability(shown) : null,
    latency: some(series.latency.p50) ? latency(shown) : null,
  };
}
