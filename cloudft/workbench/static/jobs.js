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
  const within = document.activeElement?.closest("tr[data-job]");
  const all = within ? focusable(within) : focusable(place);
  const [job, position] = [within?.dataset.job, all.indexOf(document.activeElement)];
  change();
  for (const box of place.querySelectorAll("input[name=job]")) box.checked = chosen.has(box.value);
  if (position < 0) return;
  const now = focusable(job ? rowOf(job) : place);
  if (now[position] !== document.activeElement) now[position]?.focus({ preventScroll: true });
}

const focusable = (within) => [...(within?.querySelectorAll("a, input, button") ?? [])];
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
