// The page of one job, live: its state, new points in its charts, new lines of its log.
import { address, follow, showNotice } from "./live.js";
import { buildCharts, chartOf } from "./chart.js";

const MAX_LINES = 1000;
const place = document.getElementById("charts");
const log = document.getElementById("log");
const firstLines = log.textContent.split("\n").filter((line, n, all) => line || n < all.length - 1);
let lines = firstLines;

const figures = () => [...place.querySelectorAll("figure.chart[data-chart]")];
const figureOf = (measure) => figures().find((figure) => figure.dataset.measure === measure);

/** Load the figures again: the job has a curve that the page lacks. */
let isLoading = false;
async function loadFigures() {
  if (isLoading) return;
  isLoading = true;
  try {
    const answer = await fetch(address(place.dataset.charts));
    if (!answer.ok) return;
    const template = document.createElement("template");
    template.innerHTML = await answer.text(); // rendered by the server, every value escaped
    place.replaceChildren(template.content);
    buildCharts(place);
  } finally {
    isLoading = false;
  }
}

function showLines(added, whole = false) {
  const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
  lines = [...(whole ? [] : lines), ...added].slice(-MAX_LINES);
  log.textContent = lines.join("\n");
  if (atEnd) log.scrollTop = log.scrollHeight;
}

follow(document.getElementById("live").dataset.live, {
  again: () => { lines = firstLines; },
  gone: () => showNotice("job", "This job was removed. The page shows what it was before."),
  problem: (text) => showNotice("job", `The job can't be read now: ${text}`),
  head: (html) => {
    showNotice("job", "");
    const head = document.getElementById("head");
    // Not while someone reads in it: a text that is opened would close, a link lose the focus.
    if (head.querySelector("details[open]") || head.contains(document.activeElement)) {
      const template = document.createElement("template");
      template.innerHTML = html;
      const status = template.content.getElementById("status");
      document.getElementById("status").replaceWith(status);
      return;
    }
    head.innerHTML = html; // rendered by the server, every value escaped
  },
  points: (byMeasure) => {
    for (const [measure, curves] of Object.entries(byMeasure)) {
      const figure = figureOf(measure);
      if (!figure) { loadFigures(); return; }
      chartOf(figure).append(curves);
    }
  },
  reload: () => {
    if (!figures().length) { loadFigures(); return; }
    for (const figure of figures()) chartOf(figure).load();
  },
  log: (added) => showLines(added),
  wholeLog: ({ lines: all, note }) => {
    document.getElementById("log-note").textContent = note;
    showLines(all, true);
  },
});
log.scrollTop = log.scrollHeight;
