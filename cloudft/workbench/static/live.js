// What every page's script shares: addresses, forms sent by a script, and events from the server.

const root = document.body.dataset.root;

/** Return the address of a path of this workbench. */
export const address = (path) => root + path;

/** Fetch JSON. Throw an Error with the server's message and fix. */
export async function fetchJson(path, options = {}) {
  const response = await fetch(address(path), {
    ...options, headers: { accept: "application/json", ...(options.headers ?? {}) } });
  const value = await response.json().catch(() => ({}));
  if (!response.ok) {
    const error = value.error ?? { message: `the workbench answered ${response.status}` };
    const text = [error.message, error.fix].filter(Boolean).join(": ");
    throw Object.assign(new Error(text), { status: response.status });
  }
  return value;
}

/** Post fields with the token of the form of `path`; return the JSON of the answer. */
export const postForm = (path, token, fields) =>
  fetchJson(path, { method: "POST", body: new URLSearchParams({ ...fields, form: token }) });

const REOPEN_MS = 5000;
const notices = new Map();

/** Show a notice above the page, one for each kind; an empty text removes it. */
export function showNotice(kind, text) {
  let place = notices.get(kind);
  if (!place) {
    if (!text) return;
    place = document.createElement("p");
    place.className = "notice live-notice";
    place.setAttribute("role", "status");
    document.getElementById("page").prepend(place);
    notices.set(kind, place);
  }
  place.hidden = !text;
  if (place.textContent !== text) place.textContent = text;
}

const timeOfDay = () => new Date().toLocaleTimeString("en-GB");

/**
 * Call handlers[NAME](data) for each event of a path. A hidden page holds no connection: a browser
 * opens only six to one server. Each connection sends from where the page was loaded:
 * handlers.again() is called when another one begins. While the workbench does not answer, a notice
 * says that what is shown is old.
 */
export function follow(path, { again = () => {}, ...handlers }) {
  let source = null;
  let ended = false;
  let connections = 0;
  let lostAt = "";
  const open = () => {
    if (source || ended || document.hidden) return;
    source = new EventSource(address(path));
    source.addEventListener("open", () => {
      if (connections) again();
      connections += 1;
      lostAt = "";
      showNotice("connection", "");
    });
    source.addEventListener("error", () => {
      lostAt ||= timeOfDay();
      showNotice("connection", `The workbench does not answer: this page is as it was at ${lostAt}.`
        + " Is `cloudft ui` still running? After a restart it has a new address.");
      // A browser connects again by itself, but not after an answer that is an error.
      if (source?.readyState === EventSource.CLOSED) { close(); setTimeout(open, REOPEN_MS); }
    });
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => handle(JSON.parse(event.data)));
    }
    source.addEventListener("end", () => { ended = true; close(); });
  };
  const close = () => { source?.close(); source = null; };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  window.addEventListener("pagehide", () => { ended = true; close(); });
  window.addEventListener("pageshow", (event) => { if (event.persisted) { ended = false; open(); } });
  open();
  return () => { ended = true; close(); };
}

// A form that changes or costs something asks first: data-confirm holds the question.
document.addEventListener("submit", (event) => {
  const question = event.target.dataset?.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});
