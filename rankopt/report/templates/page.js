"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);

// colours of text and grid are the page's variables, so that light, dark and print need no second drawing
const looks = {
  background: null, font: "system-ui, sans-serif", view: { stroke: null }, rule: { color: "var(--soft)" }, text: { color: "var(--ink)" },
  axis: { labelColor: "var(--ink)", titleColor: "var(--ink)", gridColor: "var(--line)", domainColor: "var(--soft)",
    tickColor: "var(--soft)", titleFontWeight: "normal", labelFontSize: 12, titleFontSize: 12 },
  legend: { labelColor: "var(--ink)", titleColor: "var(--ink)" },
};
// the expressions are interpreted, because the page's policy forbids to compile them
const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true, config: looks };

const views = {};
function draw(id, hidden) {
  const shown = (row) => !hidden.has(row.label);
  const layer = figures[id].layer
    .map((one) => one.data ? { ...one, data: { values: one.data.values.filter(shown) } } : one)
    .filter((one) => !one.data || one.data.values.length);  // a layer without data warns that it has no extent
  if (layer.length)
    vegaEmbed("#" + CSS.escape(id), { ...figures[id], layer }, options).then((drawn) => { views[id] = drawn.view; });
  else document.getElementById(id).replaceChildren();
}
for (const id of Object.keys(figures)) draw(id, new Set());

for (const button of document.querySelectorAll(".legend button"))
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
    const figure = button.closest("figure");
    const off = [...figure.querySelectorAll('.legend button[aria-pressed="false"]')].map((one) => one.dataset.label);
    for (const plot of figure.querySelectorAll(".plot")) draw(plot.id, new Set(off));
  });

for (const slider of document.querySelectorAll(".slider input"))
  slider.addEventListener("input", () => {
    const moment = slider.list.options[slider.value].label, figure = slider.closest("figure");
    slider.setAttribute("aria-valuetext", moment);
    slider.nextElementSibling.value = moment;
    for (const plot of figure.querySelectorAll(".plot")) views[plot.id].signal("moment", +slider.value).runAsync();
  });

for (const button of document.querySelectorAll("thead button"))
  button.addEventListener("click", () => {
    const head = button.parentElement, body = head.closest("table").tBodies[0];
    const up = head.getAttribute("aria-sort") !== "ascending", number = head.classList.contains("number");
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = ({ cells: { [head.cellIndex]: cell } }) => cell.dataset.value ?? cell.textContent;
    const order = (a, b) => (number ? a - b : a.localeCompare(b)) * (up ? 1 : -1);
    // rows without a value stay below, whichever way the rest is sorted
    const rows = [...body.rows].sort((a, b) => {
      const x = value(a), y = value(b);
      return x === "" || y === "" ? (x === "") - (y === "") : order(x, y);
    });
    body.append(...rows);
  });
