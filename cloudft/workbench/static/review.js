// Judges two answers side by side by keyboard; the next record comes when the judgment is saved.
import { fetchJson, postForm } from "./live.js";
import { openOutbox } from "./outbox.js";

const $ = (id) => document.getElementById(id);
const work = $("review-work");
const { base, reviewer, token } = work.dataset;
const buttons = [...document.querySelectorAll("button[name=choice]")];
let current = null;

function show(state) {
  current = state;
  const { record } = state;
  $("count").textContent = `${state.judged} of ${state.total}`;
  $("progress").max = Math.max(1, state.total);
  $("progress").value = state.judged;
  $("judge").hidden = !record;
  $("end").hidden = !!record;
  $("back").disabled = state.position === 0;
  if (!record) return;
  for (const [id, text] of [["prompt", record.prompt], ["left-text", record.left],
    ["right-text", record.right], ["reference", record.reference]]) {
    $(id).textContent = text.trim() ? text : "";
    $(id).scrollTop = 0;
  }
  for (const button of buttons) button.setAttribute("aria-pressed", String(record.choice === button.value));
  $("note").value = record.note;
  window.scrollTo(0, 0);
}

function showError(text) { $("error").hidden = !text; $("error").textContent = text; }

const outbox = openOutbox({
  send: (item) => postForm(`${base}/judge`, token, item),
  onSaved: show,
  onRefused(error) { showError(`Not saved: ${error.message}`); },
  onState(text, problem) { $("state").textContent = text; showError(problem); },
});

function judge(choice) {
  if (!current?.record || outbox.items.length) return;
  outbox.add({ reviewer, position: current.position, choice, note: $("note").value });
}

async function back() {
  if (!current || current.position === 0 || outbox.items.length) return;
  try {
    show(await fetchJson(`${base}/record?${new URLSearchParams({ reviewer, position: current.position - 1 })}`));
  } catch (error) { showError(`Can't load the record: ${error.message}`); }
}

const keys = { ArrowLeft: () => judge("left"), ArrowRight: () => judge("right"), t: () => judge("tie"),
  b: () => judge("bad"), u: back, z: back, n: () => $("note").focus(), r: () => { $("more").open = !$("more").open; } };
document.addEventListener("keydown", (event) => {
  if (event.target === $("note")) { if (event.key === "Escape") $("note").blur(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});
$("judge").addEventListener("submit", (event) => {
  event.preventDefault();
  if (event.submitter?.name === "choice") judge(event.submitter.value);
});
$("judge").addEventListener("click", (event) => { if (event.detail) event.target.closest("button")?.blur(); });
$("back").addEventListener("click", back);
$("again").addEventListener("click", back);
show(JSON.parse(work.dataset.start));
