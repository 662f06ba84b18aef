// The tokens of an answer with their probabilities, by the tuned model and by its base.

const LEVELS = [[0.9, "90 % or more"], [0.5, "50 to 90 %"], [0.1, "10 to 50 %"], [0.01, "1 to 10 %"], [0, "below 1 %"]];
const level = (p) => LEVELS.findIndex(([least]) => p >= least) + 1;

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

/** Return a probability in percent, exact enough to tell small ones apart. */
export function percent(p) {
  if (p > 0 && p < 0.0001) return `${(100 * p).toExponential(0)} %`;
  return `${(100 * p).toLocaleString("en", { maximumFractionDigits: p < 0.01 ? 2 : 1 })} %`;
}

/** Return a token's text with its white space visible. */
const visible = (text) => text.replace(/ /g, "␣").replace(/\n/g, "↵").replace(/\t/g, "⇥") || "(a part of a character)";

/** Return an element with every token of an answer of `variant`; `rated` has them by each model. */
export function showTokens(rated, variant) {
  const tokens = rated[variant];
  const detail = make("div", { className: "alternatives" });
  detail.setAttribute("aria-live", "polite");
  const text = make("div", { className: "text tokens" });
  text.setAttribute("role", "group");
  text.setAttribute("aria-label", "Tokens; the arrow keys go from one to the next");
  const spans = tokens.map((token, index) => {
    const span = make("span", { className: `token p${level(token.p)}`, textContent: token.text || "·", tabIndex: index ? -1 : 0 });
    span.setAttribute("role", "button");
    span.setAttribute("aria-label", `${visible(token.text)}, ${percent(token.p)}`);
    return span;
  });
  const choose = (index) => {
    spans.forEach((span, at) => { span.tabIndex = at === index ? 0 : -1; span.classList.toggle("chosen", at === index); });
    const order = Object.keys(rated).sort((a, b) => (b === variant) - (a === variant));
    detail.replaceChildren(...order.map((name) => alternatives(name, rated[name][index])));
  };
  const indexOf = (event) => spans.indexOf(event.target);
  for (const kind of ["pointerover", "focusin", "click"]) {
    text.addEventListener(kind, (event) => { if (indexOf(event) >= 0) choose(indexOf(event)); });
  }
  text.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const next = spans[indexOf(event) + step];
    if (!step || !next) return;
    event.preventDefault();
    next.focus();
  });
  text.append(...spans);
  const legend = make("p", { className: "legend" }, "Probability:",
    ...LEVELS.map(([, title], at) => make("span", { className: `token p${at + 1}`, textContent: title })));
  return make("div", { className: "rated" }, text, legend, detail);
}

/** Return the table of what a model would have written at one position. */
function alternatives(name, token) {
  const rows = token.top.map(([id, text, p]) => row(text, p, id === token.id));
  if (token.rank > token.top.length) rows.push(row(token.text, token.p, true, `rank ${token.rank.toLocaleString("en")}`));
  const table = make("table", {}, make("caption", { textContent: `${name} at this position` }), make("tbody", {}, ...rows));
  return make("div", {}, table);
}

function row(text, p, isOwn, rank = "") {
  const code = make("code", { textContent: visible(text) });
  return make("tr", { className: isOwn ? "own" : "" }, make("td", {}, code, isOwn ? " ←" : "", rank && ` ${rank}`),
    make("td", { className: "n", textContent: percent(p) }));
}
