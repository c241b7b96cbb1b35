// The page of all classes: a map of their rates on a canvas, and a table that is sorted and searched by the service.
import { call } from "./api.js";
import { count, number, percent } from "./format.js";
import { element, say } from "./page.js";

const page = document.getElementById("classes");
const source = page.dataset.source;
const rowsAtOnce = Number(page.dataset.rows);
const table = { sort: "worst", search: "", offset: 0, next: null, total: Number(page.dataset.total) };
let asked = 0;

export function classAddress(label) {
  const quoted = encodeURIComponent(label);
  return label === "." || label === ".." ? `/dashboard/classes/?label=${quoted}` : `/dashboard/classes/${quoted}`;
}

async function load() {
  const mine = ++asked;
  const query = new URLSearchParams({
    source, sort: table.sort, search: table.search, offset: table.offset, limit: rowsAtOnce,
  });
  try {
    const answer = await call("GET", `/v1/classes?${query}`);
    if (mine !== asked) return; // a later search has been asked for meanwhile
    table.next = answer.next_offset;
    table.total = answer.total;
    document.getElementById("rows").replaceChildren(...answer.classes.map(row));
    document.getElementById("nothing").hidden = answer.total > 0;
    showPosition(answer.classes.length);
    say("");
  } catch (error) {
    say(error.message, "bad");
  }
}

function row(entry) {
  const link = element("a", { class: "text", href: classAddress(entry.label) }, entry.label);
  return element("tr", {},
    element("td", { class: "label", title: link.textContent }, link),
    element("td", { class: "n" }, count(entry.items)),
    element("td", { class: "n" }, percent(entry.far)),
    element("td", { class: "n" }, percent(entry.frr)),
    element("td", { class: "n" }, number(entry.utility)));
}

function showPosition(shown) {
  document.getElementById("position").textContent = table.total
    ? `${count(table.offset + 1)} to ${count(table.offset + shown)} of ${count(table.total)}` : "";
  document.getElementById("previous").disabled = table.offset === 0;
  document.getElementById("next").disabled = table.next === null;
}

for (const head of document.querySelectorAll("th[data-sort]")) {
  head.querySelector("button").addEventListener("click", () => {
    document.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
    table.sort = head.dataset.sort;
    head.setAttribute("aria-sort", ["label", "worst"].includes(table.sort) ? "ascending" : "descending");
    table.offset = 0;
    load();
  });
}
let waiting;
document.getElementById("search").addEventListener("input", (event) => {
  clearTimeout(waiting);
  waiting = setTimeout(() => { table.search = event.target.value; table.offset = 0; load(); }, 120);
});
document.getElementById("previous").addEventListener("click", () => { table.offset = Math.max(0, table.offset - rowsAtOnce); load(); });
document.getElementById("next").addEventListener("click", () => { table.offset = table.next; load(); });
const shownFirst = document.querySelectorAll("#rows tr").length;
table.next = shownFirst < table.total ? shownFirst : null;
showPosition(shownFirst);

// the map: both axes by the square root, so that small rates are told apart
const canvas = document.getElementById("map");
if (canvas) {
  const tip = document.getElementById("tip");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const edge = { left: 46, right: 14, top: 26, bottom: 34 };
  let data = { labels: [], cut: [], far: [], frr: [], items: [] };
  let cut = new Set();
  let most = { far: 1, frr: 1, items: 1 };
  let places = [];

  const top = (values) => {
    const largest = values.reduce((high, value) => Math.max(high, value), 0) || 0.01;
    return [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1].find((step) => step >= largest) || 1;
  };

  function draw() {
    const scale = devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = canvas;
    canvas.width = width * scale;
    canvas.height = height * scale;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const x = (far) => edge.left + (width - edge.left - edge.right) * Math.sqrt(far / most.far);
    const y = (frr) => height - edge.bottom - (height - edge.top - edge.bottom) * Math.sqrt(frr / most.frr);
    pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    pen.lineWidth = 1;
    for (const share of [0, 0.05, 0.25, 0.5, 1]) {
      const [across, up] = [x(share * most.far), y(share * most.frr)];
      pen.strokeStyle = css("grid");
      pen.beginPath();
      pen.moveTo(across, edge.top); pen.lineTo(across, height - edge.bottom);
      pen.moveTo(edge.left, up); pen.lineTo(width - edge.right, up);
      pen.stroke();
      pen.fillStyle = css("faint");
      pen.textAlign = share === 1 ? "right" : "center";
      pen.fillText(percent(share * most.far), across, height - edge.bottom + 16);
      pen.textAlign = "right";
      if (share) pen.fillText(percent(share * most.frr), edge.left - 6, up + 4);
    }
    pen.textAlign = "right";
    pen.fillText("FAR →", width - edge.right, height - 4);
    pen.textAlign = "left";
    pen.fillText("↑ FRR", 4, 11);
    pen.fillStyle = css("accent");
    pen.strokeStyle = css("card");
    pen.lineWidth = 0.6;
    pen.globalAlpha = data.labels.length > 2000 ? 0.4 : 0.62;
    const size = Math.min(1, Math.max(0.3, Math.sqrt(700 / data.labels.length))); // many are drawn smaller
    places = data.far.map((far, at) => [x(far), y(data.frr[at]), size * (2.4 + 6.5 * Math.sqrt(data.items[at] / most.items))]);
    for (const [left, up, radius] of places) {
      pen.beginPath();
      pen.arc(left, up, radius, 0, 7);
      pen.fill();
      pen.stroke();
    }
    pen.globalAlpha = 1;
    document.body.dataset.mapped = document.documentElement.dataset.theme;
  }

  function nearest(event) {
    const box = canvas.getBoundingClientRect();
    const [left, up] = [event.clientX - box.left, event.clientY - box.top];
    let found = -1;
    let least = 14 ** 2;
    places.forEach(([px, py], at) => {
      const distance = (px - left) ** 2 + (py - up) ** 2;
      if (distance < least) { least = distance; found = at; }
    });
    return found;
  }

  canvas.addEventListener("pointermove", (event) => {
    const at = nearest(event);
    tip.hidden = at < 0;
    if (at < 0) return;
    tip.textContent = `${data.labels[at]}${cut.has(at) ? "…" : ""}: FAR ${percent(data.far[at])}, FRR ${percent(data.frr[at])}, ${count(data.items[at])} items`;
    const [left, up] = places[at];
    tip.style.left = `${Math.min(left + 12, canvas.clientWidth - tip.offsetWidth)}px`;
    tip.style.top = `${Math.max(0, up - tip.offsetHeight - 10)}px`;
  });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  canvas.addEventListener("click", (event) => {
    const at = nearest(event);
    if (at < 0) return;
    if (!cut.has(at)) { location.assign(classAddress(data.labels[at])); return; }
    const search = document.getElementById("search");
    search.value = data.labels[at];
    search.dispatchEvent(new Event("input"));
  });

  (async () => {
    try {
      data = await call("GET", `/dashboard/classes.json?source=${source}`);
    } catch (error) {
      say(error.message, "bad");
      return;
    }
    cut = new Set(data.cut);
    most = { far: top(data.far), frr: top(data.frr), items: data.items.reduce((high, value) => Math.max(high, value), 1) };
    document.getElementById("map-note").textContent = data.left_out ? `The ${count(data.labels.length)} worst are drawn.` : "Both axes are drawn by the square root, so that small rates are told apart.";
    draw();
    document.addEventListener("limen-theme", draw);
    new ResizeObserver(draw).observe(canvas.parentElement);
  })();
}
