// The table of jobs, live: rows that change are replaced, and the table when jobs come or go.
import { follow } from "./live.js";

const place = document.getElementById("jobs");

/** Return the elements of a part that the server has rendered, every value in it escaped. */
function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

/** Change rows, and keep the focus and the jobs that are chosen for a comparison. */
function keepPlace(change) {
  const chosen = new Set([...place.querySelectorAll("input[name=job]:checked")].map((box) => box.value));
  const focused = document.activeElement?.closest("tr[data-job]")?.dataset.job;
  change();
  if (focused) rowOf(focused)?.querySelector("a")?.focus({ preventScroll: true });
  for (const box of place.querySelectorAll("input[name=job]")) box.checked = chosen.has(box.value);
}

const rowOf = (id) => place.querySelector(`tr[data-job="${CSS.escape(id)}"]`);

follow(place.dataset.live, {
  table: (html) => keepPlace(() => place.replaceChildren(parse(html))),
  rows: (rows) => keepPlace(() => {
    for (const [id, html] of Object.entries(rows)) rowOf(id)?.replaceWith(parse(html));
  }),
});

// A choice filters at once; the button remains for those without a script.
for (const choice of document.querySelectorAll(".filters select")) {
  choice.addEventListener("change", () => choice.form.requestSubmit());
}
