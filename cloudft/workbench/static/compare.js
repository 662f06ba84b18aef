// While one of the compared jobs runs, its curve is read again.
import { chartOf } from "./chart.js";

const AGAIN_MS = 3000;

setInterval(() => {
  if (document.hidden) return;
  for (const figure of document.querySelectorAll("figure.chart[data-chart]")) chartOf(figure)?.load();
}, AGAIN_MS);
