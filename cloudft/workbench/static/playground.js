// The playground: questions to several models at once, their tokens, and test cases.
import { address, fetchJson, follow, postForm } from "./live.js";
import { showTokens } from "./tokens.js";

const page = document.querySelector("#playground");
const config = JSON.parse(page.dataset.config);
const readOnly = page.dataset.readOnly === "yes";
const SHOWN = 5000; // characters of a text before "show all"
const find = (selector) => document.querySelector(selector);
const turns = []; // {id, item, answers, tokens of the forms}: those of the conversation so far
let current = null; // the run that is being answered: {id, stop, end}

/** Make an element with properties and children; texts are texts, never markup. */
export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

function report(error) {
  const problem = find("#problem");
  problem.hidden = !error;
  problem.textContent = error ? error.message ?? error : "";
}

/** Fill an element with a text, of which a long one is cut. */
function showText(element, text) {
  element.replaceChildren(document.createTextNode(text.slice(0, SHOWN)));
  if (text.length <= SHOWN) return;
  const more = make("button", { type: "button",
    textContent: `show all of ${text.length.toLocaleString("en")} characters` });
  more.addEventListener("click", () => element.replaceChildren(document.createTextNode(text)));
  element.append(" … ", more);
}

const decoding = () => ({
  system: find("#system").value, temperature: find("#temperature").value, topP: find("#top-p").value,
  seed: find("#seed").value, maxNewTokens: find("#max-new-tokens").value,
  confirmed: find("#confirm-price")?.checked ?? false,
});

function showDecoding() {
  const { system, temperature, topP, seed, maxNewTokens } = decoding();
  const how = Number(temperature) ? `temperature ${temperature}, top-p ${topP}, seed ${seed}` : "greedy";
  find("#decoding").textContent = `· ${how}, at most ${maxNewTokens} tokens${system ? ", with a system message" : ""}`;
}

function setBusy(run) {
  current = run;
  find("#send").disabled = Boolean(run);
  find("#stop").disabled = !run || run.isCases;
  find("#undo").disabled = find("#reset").disabled = Boolean(run) || !turns.length;
  const runCases = find("#run-cases");
  if (runCases) runCases.disabled = Boolean(run);
  if (runCases) find("#stop-cases").disabled = !run?.isCases;
}

const gigabytes = (bytes) => `${(bytes / 1e9).toLocaleString("en", { maximumFractionDigits: 2 })} GB`;

function showModels(models) {
  const parts = models.map((one) => {
    if (one.state === "loading") return `${one.job} is loading, ${one.seconds} s`;
    const size = one.parameters === null ? [] : [`${one.parameters.toLocaleString("en", { notation: "compact", maximumSignificantDigits: 3 })} parameters`];
    if (one.resident_bytes !== null) size.push(`${gigabytes(one.resident_bytes)} of memory`);
    if (one.device) size.push(`on ${one.device}`);
    return [`${one.job} is loaded`, ...size].join(", ");
  });
  find("#loaded").textContent = parts.length ? `${parts.join("; ")}.` : "No model is loaded.";
}

/** One model's answer on the page. */
class AnswerView {
  constructor(speaker, turn, index) {
    Object.assign(this, { turn, index, speaker, text: "", thought: "", last: null });
    this.thoughtText = make("p", { className: "text" });
    this.thoughts = make("details", { className: "thought", hidden: true },
      make("summary", { textContent: "Reasoning" }), this.thoughtText);
    this.body = make("div", { className: "text" });
    this.foot = make("p", { className: "foot", textContent: "waiting …" });
    this.element = make("article", { className: "answer" },
      make("h3", { textContent: `${speaker[1]} · ${speaker[0]}` }), this.thoughts, this.body, this.foot);
  }

  change(event) {
    this.last = event;
    const isAppended = event.at === this.text.length && this.body.firstChild;
    this.text = this.text.slice(0, event.at) + event.text;
    this.thought = this.thought.slice(0, event.thoughtAt) + event.thought;
    this.element.dataset.state = event.state;
    if (isAppended && event.text && this.text.length < SHOWN) this.body.firstChild.appendData(event.text);
    else if (!isAppended || event.text) showText(this.body, this.text);
    this.thoughts.hidden = !this.thought;
    showText(this.thoughtText, this.thought);
    this.showFoot(event);
  }

  showFoot(event) {
    if (event.state === "waiting" || event.state === "loading") {
      this.foot.textContent = event.state === "loading" ? "loading the models …" : "waiting …";
      return;
    }
    const speed = event.tokens && event.seconds ? `${(event.tokens / event.seconds).toFixed(1)} tokens/s` : "";
    const ends = { stop: "", length: "cut at the limit", canceled: "stopped", filtered: "filtered" };
    const parts = [`${event.tokens.toLocaleString("en")} tokens`, `${event.seconds.toFixed(2)} s`, speed,
      ends[event.finish] ?? event.finish, event.note].filter(Boolean);
    this.foot.replaceChildren(make("span", { textContent: event.state === "failed" ? "" : parts.join(" · ") }));
    if (event.error) this.foot.append(make("span", { className: "bad", textContent: event.error }));
    if (event.canRate) {
      const button = make("button", { type: "button", textContent: "Token probabilities" });
      button.addEventListener("click", () => this.rate(button));
      this.foot.append(button);
    }
  }

  async rate(button) {
    if (this.tokens) {
      this.tokens.remove();
      this.tokens = null;
      this.body.hidden = false;
      button.textContent = "Token probabilities";
      return;
    }
    button.disabled = true;
    try {
      const path = `/playground/answers/${this.turn.id}/probabilities`;
      const rated = await postForm(path, this.turn.probabilities,
        { request: JSON.stringify({ index: this.index }) });
      this.tokens = showTokens(rated, this.speaker[1]);
      this.body.hidden = true;
      this.body.after(this.tokens);
      button.textContent = "Plain text";
    } catch (error) {
      report(error);
    }
    button.disabled = false;
  }
}

/** Post a question or a set of test cases, and follow the answers. */
async function start(fields, onAnswer, isCases = false) {
  report(null);
  if (config.billed.length && !decoding().confirmed) {
    throw new Error("Answers are billed: confirm their price above first.");
  }
  const request = JSON.stringify({ jobs: config.jobs, ...decoding(), ...fields });
  const run = await postForm("/playground/answers", config.answersToken, { request });
  setBusy({ ...run, isCases });
  const stop = follow(`/playground/answers/${run.id}/live`, {
    answers: (changes) => changes.forEach((change) => onAnswer(change, run)),
    models: showModels,
    end: () => { stop(); setBusy(null); },
  });
  return run;
}

async function send(event) {
  event.preventDefault();
  const prompt = find("#prompt");
  const text = prompt.value;
  if (current || !text.trim()) return;
  find("#send").disabled = true;
  const turn = { text, after: turns.at(-1)?.id ?? "" };
  turn.views = config.speakers.map((speaker, index) => new AnswerView(speaker, turn, index));
  turn.item = make("li", {}, question(turn),
    make("div", { className: "pair" }, ...turn.views.map((view) => view.element)));
  try {
    const early = [];
    let known = false;
    const run = await start({ text, after: turn.after },
      (change) => (known ? turn.views[change.index].change(change) : early.push(change)));
    Object.assign(turn, run);
    turns.push(turn);
    find("#turns").append(turn.item);
    known = true;
    early.forEach((change) => turn.views[change.index].change(change));
    prompt.value = "";
    turn.item.scrollIntoView({ block: "nearest" });
  } catch (error) {
    report(error);
    setBusy(null);
  }
}

/** Make a question with the form that saves it as a test case. */
function question(turn) {
  const text = make("div", { className: "text", dir: "auto" });
  showText(text, turn.text);
  const element = make("div", { className: "question" }, text);
  if (readOnly) return element;
  const open = make("button", { type: "button", textContent: "Save as test case" });
  open.setAttribute("aria-expanded", "false");
  open.addEventListener("click", () => {
    const form = element.querySelector("form");
    open.setAttribute("aria-expanded", String(!form));
    if (form) form.remove();
    else element.append(saveForm(turn, open));
  });
  element.append(open);
  return element;
}

function saveForm(turn, opener) {
  const expected = make("textarea", { rows: 3, dir: "auto", value: turn.views.at(-1).text });
  const name = make("input", { value: find("#run-cases")?.dataset.set ?? "cases", pattern: "\\w[\\w.\\-]*", maxLength: 60, required: true });
  const form = make("form", { className: "save" },
    make("label", { className: "block" }, "Expected answer; empty if there is none", expected),
    make("div", { className: "row" }, make("label", {}, "Set ", name), make("button", { className: "primary", textContent: "Save" })));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const job = turn.views.at(-1).speaker[0];
    const request = { job, set: name.value, after: turn.after, system: find("#system").value, text: turn.text, expected: expected.value };
    try {
      await postForm("/playground/cases/save", config.saveToken, { request: JSON.stringify(request) });
      await showCases(name.value);
      opener.textContent = `Saved in ${name.value}`;
      opener.setAttribute("aria-expanded", "false");
      form.remove();
    } catch (error) {
      report(error);
    }
  });
  return form;
}

async function showCases(name) {
  const query = new URLSearchParams([...config.jobs.map((job) => ["job", job]), ["set", name]]);
  const answer = await fetch(address(`/playground/cases?${query}`));
  find("#cases").innerHTML = await answer.text(); // rendered by the server, every value escaped
  prepareCases();
}

function prepareCases() {
  const button = find("#run-cases");
  if (!button) return;
  button.disabled = Boolean(current);
  button.addEventListener("click", async () => {
    document.querySelectorAll("td[data-speaker]").forEach((cell) => cell.replaceChildren());
    const texts = new Map();
    let done = 0;
    try {
      await start({ cases: button.dataset.set }, (change, run) => {
        const text = (texts.get(change.index) ?? "").slice(0, change.at) + change.text;
        texts.set(change.index, text);
        if (change.state !== "done" && change.state !== "failed") return;
        done += 1;
        const speakers = config.speakers.length;
        showResult(run.keys[Math.floor(change.index / speakers)], change.index % speakers, text, change);
        find("#case-progress").textContent = `${done} of ${run.keys.length * speakers} answers`;
      }, true);
    } catch (error) {
      find("#case-progress").textContent = error.message;
      setBusy(null);
    }
  });
  find("#stop-cases").addEventListener("click", stopRun);
}

function showResult(key, speaker, text, change) {
  const row = document.querySelector(`tr[data-key="${key}"]`);
  const cell = row?.querySelector(`td[data-speaker="${speaker}"]`);
  if (!cell) return;
  const shown = make("span", { className: "text" });
  showText(shown, change.error || text);
  cell.replaceChildren(shown);
  const expected = row.dataset.expected;
  if (change.state === "failed" || change.finish === "canceled") {
    cell.append(make("span", { className: "verdict bad", textContent: change.error ? "failed" : "stopped" }));
  } else if (expected) {
    const same = expected.trim() === text.trim();
    cell.append(make("span", { className: `verdict ${same ? "good" : "bad"}`, textContent: same ? "✓ as expected" : "✗ differs" }));
  }
}

async function stopRun() {
  if (!current) return;
  try {
    await postForm(`/playground/answers/${current.id}/stop`, current.stop, {});
  } catch (error) {
    report(error);
  }
}

// Nobody can see the answers of a page that was left: none of them is generated, or paid, any more.
addEventListener("pagehide", () => {
  if (!current) return;
  navigator.sendBeacon(address(`/playground/answers/${current.id}/stop`), new URLSearchParams({ form: current.stop }));
});

async function showPrice() {
  const box = find("#price");
  if (!box) return;
  try {
    const { price } = await fetchJson(`/playground/price?job=${encodeURIComponent(box.dataset.job)}`);
    box.querySelector(".price").textContent = `${price}.`;
    const confirm = find("#confirm-price");
    if (confirm) confirm.disabled = false;
  } catch (error) {
    box.querySelector(".price").textContent = error.message;
  }
}

find("#ask").addEventListener("submit", send);
find("#prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) find("#ask").requestSubmit();
});
find("#stop").addEventListener("click", stopRun);
find("#undo").addEventListener("click", () => {
  const turn = turns.pop();
  turn.item.remove();
  if (!find("#prompt").value) find("#prompt").value = turn.text;
  setBusy(null);
});
find("#reset").addEventListener("click", () => {
  turns.splice(0).forEach((turn) => turn.item.remove());
  setBusy(null);
});
find(".settings").addEventListener("input", showDecoding);
showDecoding();
showPrice();
prepareCases();
fetchJson("/playground/models").then((models) => { if (models.length) showModels(models); });
