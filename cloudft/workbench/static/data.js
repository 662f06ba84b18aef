// The Data pages: how far counting, a tokenizer or a survey is, and a search that goes on by itself.

import { fetchJson, follow } from "./live.js";

const percent = (share) => `${Math.floor(100 * share)} %`;

for (const status of document.querySelectorAll("[data-follow]")) {
  const text = status.querySelector(".text-of");
  const show = (value) => { if (text) text.textContent = value; };
  follow(status.dataset.follow, {
    index: ({ share, lines }) => show(`Counting lines: ${percent(share)}, ${lines.toLocaleString("en")} so far.`),
    survey: ({ what, records }) => show(`${what[0].toUpperCase()}${what.slice(1)}: ${records.toLocaleString("en")} records`),
    end: () => ("reload" in status.dataset ? location.reload() : show("All lines are counted.")),
  });
}

// Slices of a search, one after another, until one finds something.
async function search(status) {
  const text = status.querySelector(".text-of");
  let after = status.dataset.after;
  while (after) {
    const slice = await fetchJson(`${status.dataset.scan}&after=${after}`);
    if (slice.found !== null) {
      location.replace(`${status.dataset.next}&after=${slice.at}`);
      return;
    }
    after = slice.after;
    text.textContent = after ? `Nothing found yet: searched ${percent(slice.share)} of the file.` : "Searched to the end of the file: nothing found.";
  }
  status.querySelector("a")?.remove();
}

for (const status of document.querySelectorAll("[data-run]")) {
  search(status).catch((error) => { status.querySelector(".text-of").textContent = error.message; });
}
