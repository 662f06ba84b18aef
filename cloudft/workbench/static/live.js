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

/**
 * Call handlers[NAME](data) for each event of a path. A hidden page holds no connection: a browser
 * opens only six to one server.
 */
export function follow(path, handlers) {
  let source = null;
  let ended = false;
  const open = () => {
    if (source || ended || document.hidden) return;
    source = new EventSource(address(path));
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => handle(JSON.parse(event.data)));
    }
    source.addEventListener("end", () => { ended = true; close(); });
  };
  const close = () => { source?.close(); source = null; };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  open();
  return () => { ended = true; close(); };
}

// A form that changes or costs something asks first: data-confirm holds the question.
document.addEventListener("submit", (event) => {
  const question = event.target.dataset?.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});
