"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);

// the charts take their colours of text and grid from the page, so that light, dark and print agree
function paint(layout) {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink").trim(), line = style.getPropertyValue("--line").trim();
  const axis = (spec) => ({ ...spec, gridcolor: line, zerolinecolor: ink, linecolor: line });
  return {
    ...layout, font: { color: ink, size: 12, family: "system-ui, sans-serif" },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
  };
}
function draw() {
  for (const [id, figure] of Object.entries(figures))
    Plotly.react(id, figure.data, paint(figure.layout), { responsive: true, displaylogo: false, displayModeBar: false });
}
draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
addEventListener("beforeprint", draw);
addEventListener("afterprint", draw);

for (const button of document.querySelectorAll(".legend button"))
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", shown);
    for (const plot of button.closest("figure").querySelectorAll(".plot")) {
      for (const trace of figures[plot.id].data) if (trace.name === button.dataset.label) trace.visible = shown;
      Plotly.react(plot, figures[plot.id].data, paint(figures[plot.id].layout));
    }
  });

for (const button of document.querySelectorAll("th button"))
  button.addEventListener("click", () => {
    const head = button.parentElement, body = head.closest("table").tBodies[0];
    const up = head.getAttribute("aria-sort") !== "ascending", number = head.classList.contains("number");
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => row.cells[head.cellIndex].dataset.value;
    const order = (a, b) => (number ? a - b : a.localeCompare(b)) * (up ? 1 : -1);
    // rows without a value stay below, whichever way the rest is sorted
    const rows = [...body.rows].sort((a, b) => {
      const x = value(a), y = value(b);
      return x === "" || y === "" ? (x === "") - (y === "") : order(x, y);
    });
    body.append(...rows);
  });
