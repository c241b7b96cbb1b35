// Draws charts. Figures are plotly's, name colours by role, and get the page's own: light or dark.

const drawn = {};
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const clone = (value) => JSON.parse(JSON.stringify(value));

function paint(figure) {
  const { data, layout } = clone(figure);
  const narrow = innerWidth < 620;
  const font = { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 12.5, color: css("soft") };
  for (const trace of data) {
    const { role, fill } = trace.meta || {};
    if (fill) trace.fillcolor = css(`${role}-wash`);
    if (role) trace.line = { ...trace.line, color: css(role) };
    if (role && trace.marker) trace.marker = { ...trace.marker, color: css(role) };
  }
  for (const shape of layout.shapes || []) {
    if (shape.type === "rect") shape.fillcolor = css(shape.name);
    else shape.line.color = css(shape.name);
  }
  for (const note of layout.annotations || []) {
    note.font = { ...font, color: css(note.name) };
    note.text = ` ${note.text} `;
    note.bgcolor = css("card");
  }
  for (const axis of ["xaxis", "yaxis"]) {
    layout[axis] = {
      ...layout[axis], gridcolor: css("grid"), zeroline: false, linecolor: css("line"), tickcolor: css("line"),
      fixedrange: true, automargin: true, nticks: narrow ? 5 : 8,
      title: { ...layout[axis]?.title, font, standoff: 8 },
    };
  }
  return {
    data,
    layout: {
      ...layout, font, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 8, r: 12, t: layout.showlegend === false ? 10 : 30, b: 8 }, autosize: true,
      legend: { ...layout.legend, font: { ...font, color: css("ink") }, bgcolor: "rgba(0,0,0,0)" },
      hoverlabel: { bgcolor: css("card"), bordercolor: css("line"), font: { ...font, color: css("ink") } },
    },
  };
}

async function drawOne(id) {
  const { data, layout } = paint(drawn[id]);
  await Plotly.react(document.getElementById(id), data, layout, { displayModeBar: false, responsive: true });
}

/**
 * Draw plotly figures into the elements of these ids: `await draw({ utility: { data, layout } })`.
 * Again with another figure updates it; a change of the theme draws all again.
 * The body's `data-drawn` names the theme once all are drawn.
 */
export async function draw(figures) {
  for (const [id, figure] of Object.entries(figures)) {
    drawn[id] = figure;
    document.getElementById(id).querySelector(".empty")?.remove();
    await drawOne(id);
  }
  document.body.dataset.drawn = document.documentElement.dataset.theme;
}

/** Draw one figure again that was drawn before, e.g. while a slider moves. */
export function update(id, figure) {
  drawn[id] = figure;
  return drawOne(id);
}

document.addEventListener("limen-theme", () => draw(drawn));
