// Labels records by keyboard: a key shows the next record at once, and is saved behind it.
import { fetchJson, postForm } from "./live.js";
import { openOutbox } from "./outbox.js";

const $ = (id) => document.getElementById(id);
const work = $("label-work");
const { base, person, token } = work.dataset;
const start = JSON.parse(work.dataset.queue);
const labels = start.labels;
const fixed = start.kind === "labels";
const KEYS = "123456789abcdfghijklmnopqrtvwyz";
const CUT = 4000;
const AHEAD = 3;
const MAX_UNSAVED = 5;
const UNDO_STEPS = 100;

let current = null;
let queue = [];
let filling = false;
const history = [];
let progress = start.progress;
let seen = { since: 0, before: 0 };

const node = (name, className, text) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};
const percent = (share) => `${Math.round(100 * share)} %`;
const clock = (seconds) => (seconds < 99.5 ? `${seconds.toFixed(1)} s`
  : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`);

/** Return a paragraph with a text; a long one is cut, with a button that shows all of it. */
function textNode(text, limit = CUT) {
  const made = node("p", "text", text.length > limit ? text.slice(0, limit) : text);
  made.dir = "auto";
  if (text.length > limit) {
    const more = node("button", "more", `show all ${text.length.toLocaleString("en")} characters`);
    more.type = "button";
    more.addEventListener("click", () => { made.textContent = text; });
    made.append(" … ", more);
  }
  return made;
}

function show(record) {
  current = record;
  $("record").hidden = $("choices").hidden = !record;
  $("end").hidden = !!record || filling;
  showProgress();
  if (!record) return;
  seen = { since: performance.now(), before: 0 };
  $("why").textContent = record.why;
  $("turns").replaceChildren(...record.turns.map(([role, text]) => {
    const turn = node("div", `turn ${role}`);
    turn.append(node("p", "role", role), textNode(text));
    return turn;
  }));
  $("turns").scrollTop = 0;
  showHints();
  if (!fixed) {
    $("answer").value = (start.kind === "check" ? record.given : record.suggestion?.text) ?? "";
    $("answer").readOnly = true;
    $("answer").blur();
  }
  closeSearch();
  window.scrollTo(0, 0);
}

function showHints() {
  const hints = [];
  const add = (term, text, rest = "") => {
    const value = node("dd");
    value.append(node("b", "text", text), node("span", "soft", rest));
    hints.push(node("dt", "", term), value);
  };
  const { suggestion, given, near, isBlind } = current;
  if (suggestion && fixed) {
    const others = suggestion.shares.slice(1).map(([label, share]) => `${label} ${percent(share)}`);
    const sure = suggestion.confidence === null ? "" : ` ${percent(suggestion.confidence)}`;
    add("Suggested", suggestion.text, sure + (others.length ? `, then ${others.join(", ")}` : ""));
    if (suggestion.base && suggestion.base !== suggestion.text) add("Base model", suggestion.base);
  } else if (suggestion && suggestion.confidence !== null) {
    add("Confidence", percent(suggestion.confidence), ` ${start.measure}`);
  } else if (!isBlind && progress.suggestions) {
    hints.push(node("dt", "", "Suggested"), node("dd", "soft", progress.suggestions));
  }
  if (given !== null && fixed) add("In the file", given);
  if (near) {
    add("Near duplicate", near.label, ` ${percent(near.similarity)} similar: `);
    hints.at(-1).append(textNode(near.text, 200));
  }
  $("hints").title = suggestion && fixed ? start.measure : "";
  $("hints").replaceChildren(...hints);
  $("accept").disabled = fixed ? !suggestion : false;
  for (const button of document.querySelectorAll("#labels button")) {
    button.classList.toggle("suggested", button.value === suggestion?.text);
  }
}

function showProgress() {
  $("count").textContent = `${progress.labeled} labeled, ${progress.remaining} left`;
  const each = progress.medianSeconds;
  $("cost").textContent = each === null ? ""
    : `· ${clock(each)} a label · ${clock(progress.totalSeconds)} so far · about ${clock(each * progress.remaining)} left`;
}

function showError(text) { $("error").hidden = !text; $("error").textContent = text; }

const outbox = openOutbox({
  send: (item) => postForm(`${base}/save`, token, item),
  onSaved(result, item) {
    progress = result.progress;
    showProgress();
    if (item.action === "undo" && item.restore) bringBack(result.restored);
  },
  onRefused(error, item) { showError(`Not saved: ${error.message}`); forget(item); },
  onState(text, problem) { $("state").textContent = text; showError(problem); },
});

/** Show a record again whose label was refused. */
function forget(item) {
  const refused = history.find((record) => record.key === item.key);
  if (refused) bringBack(refused);
}

function bringBack(record) {
  if (!record || record.key === current?.key) return;
  queue = queue.filter((one) => one.key !== record.key);
  if (current) queue.unshift(current);
  show(record);
}

const activeSeconds = () => {
  const now = document.hidden ? 0 : performance.now() - seen.since;
  return (seen.before + now) / 1000;
};
document.addEventListener("visibilitychange", () => {
  if (document.hidden) seen.before += performance.now() - seen.since;
  else { seen.since = performance.now(); update(); }
});

function canAct() {
  if (outbox.items.length < MAX_UNSAVED) return true;
  showError(`${outbox.items.length} labels are not saved yet: wait until they are.`);
  return false;
}

const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

function act(action, label = "") {
  if (!current || !canAct()) return;
  if (action === "label" && !label.trim()) { showError("The answer is empty: write one, or reject the record."); return; }
  const done = current;
  const item = { person, id: newId(), key: done.key, action, label, seconds: activeSeconds().toFixed(3),
    seen: done.suggestion ? "1" : "0" };
  history.push(done);
  if (history.length > UNDO_STEPS) history.shift();
  show(queue.shift() ?? null);
  outbox.add(item);
  fill();
}

function undo() {
  if (!canAct()) return;
  const before = history.pop();
  outbox.add({ person, id: newId(), key: before?.key ?? "", action: "undo", ...(before ? {} : { restore: "1" }) });
  bringBack(before);
}

/** Fetch records until there are enough for the next keys. */
async function fill() {
  if (filling || queue.length >= AHEAD - 1) return;
  filling = true;
  try {
    const held = [current, ...queue, ...outbox.items].filter(Boolean).map((one) => one.key);
    const more = await fetchJson(`${base}/queue?${new URLSearchParams({ person, held: held.join(",") })}`);
    const known = new Set([current, ...queue, ...outbox.items].filter(Boolean).map((one) => one.key));
    queue.push(...more.records.filter((one) => !known.has(one.key)));
    if (!outbox.items.length) progress = more.progress;
  } catch (error) {
    showError(`Can't load more records: ${error.message}`);
  }
  filling = false;
  if (!current) show(queue.shift() ?? null);
}

/** Fetch suggestions that were not known when a record was sent. */
async function update() {
  const missing = [current, ...queue].filter((one) => one && !one.suggestion && !one.isBlind);
  if (document.hidden || !progress.suggestions || !missing.length) return;
  try {
    const look = missing.map((one) => one.key).join(",");
    const found = await fetchJson(`${base}/queue?${new URLSearchParams({ person, look })}`);
    progress.suggestions = found.progress.suggestions;
    if (current && !current.suggestion) showHints(); // how far the suggestions are
    for (const one of found.updates) {
      for (const record of [current, ...queue]) if (record?.key === one.key) Object.assign(record, one);
      if (current?.key === one.key) {
        $("why").textContent = one.why;
        showHints();
        if (start.kind === "text" && $("answer").readOnly) $("answer").value = one.suggestion?.text ?? "";
      }
    }
  } catch { /* the next one finds it */ }
}
setInterval(update, 1500);

function accept() {
  if (!current) return;
  if (!fixed) act("label", $("answer").value);
  else if (current.suggestion) act("label", current.suggestion.text);
}

function edit() { $("answer").readOnly = false; $("answer").focus(); }

function search(text) {
  const words = text.toLowerCase().trim();
  for (const button of document.querySelectorAll("#labels button")) {
    button.hidden = !button.value.toLowerCase().includes(words);
  }
}
function openSearch() { if (fixed) { $("search-row").hidden = false; $("search").focus(); } }
function closeSearch() {
  if (!fixed) return;
  $("search").value = "";
  search("");
  $("search").blur();
  $("search-row").hidden = labels.length <= KEYS.length;
}

function toggleKeys() { if ($("keys").open) $("keys").close(); else $("keys").showModal(); }

const commands = { Enter: accept, s: () => act("skip"), x: () => act("reject"), u: undo, "/": openSearch, "?": toggleKeys,
  ...(fixed ? {} : { e: edit }) };

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.repeat || $("keys").open) return;
  if (event.target === $("search")) {
    if (event.key === "Escape") { event.preventDefault(); closeSearch(); }
    else if (event.key === "Enter") {
      event.preventDefault();
      const first = document.querySelector("#labels button:not([hidden])");
      if (first) act("label", first.value);
    }
    return;
  }
  if (event.target === $("answer") && !$("answer").readOnly) {
    if (event.key === "Escape") { $("answer").readOnly = true; $("answer").blur(); }
    else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); accept(); }
    return;
  }
  if (event.ctrlKey || event.metaKey) return;
  const isControl = event.target.closest?.("button, a, summary");
  if (isControl && (event.key === "Enter" || event.key === " ")) return;
  const number = fixed ? KEYS.indexOf(event.key) : -1;
  if (commands[event.key]) { event.preventDefault(); commands[event.key](); }
  else if (number >= 0 && number < labels.length) { event.preventDefault(); act("label", labels[number]); }
});

$("choices").addEventListener("submit", (event) => {
  event.preventDefault();
  const button = event.submitter;
  if (button?.name === "label") act("label", button.value);
  else if (button?.value === "undo") undo();
  else if (button?.id === "accept") accept();
  else if (button) act(button.value);
});
// A button that was clicked must not take the next Enter.
$("choices").addEventListener("click", (event) => { if (event.detail) event.target.closest("button")?.blur(); });
if (fixed) {
  $("accept").addEventListener("click", accept);
  $("search").addEventListener("input", () => search($("search").value));
  document.querySelectorAll("#labels button").forEach((button, number) => {
    button.querySelector("kbd").textContent = KEYS[number] ?? "";
  });
} else {
  $("edit").addEventListener("click", edit);
  $("answer").addEventListener("dblclick", edit);
}
$("help").addEventListener("click", toggleKeys);
$("close-keys").addEventListener("click", toggleKeys);

queue = start.records.slice(1);
show(start.records[0] ?? null);
fill();
