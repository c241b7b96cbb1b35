// Draws the charts of the dashboard. Figures name colours by role; the page's own colours are filled in.
"use strict";
(() => {
  let figures = {};
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
        title: { ...layout[axis].title, font, standoff: 8 },
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

  async function draw() {
    for (const [id, figure] of Object.entries(figures)) {
      const plot = document.getElementById(id);
      const { data, layout } = paint(figure);
      await Plotly.react(plot, data, layout, { displayModeBar: false, responsive: true });
    }
    document.body.dataset.drawn = document.documentElement.dataset.theme;
  }

  async function start() {
    const answer = await fetch("/dashboard/figures");
    if (!answer.ok) {
      document.querySelectorAll(".plot").forEach((plot) => { plot.textContent = "The charts could not be loaded."; });
      return;
    }
    figures = await answer.json();
    await draw();
    document.addEventListener("limen-theme", draw);
  }
  start();
})();
