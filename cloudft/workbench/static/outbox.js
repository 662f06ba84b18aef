// Sends what a person decides, in order and one after the other, until the workbench has saved it.

const RETRY_MS = 2000;

/**
 * Return an outbox. `send(item)` posts one item; `onSaved(result, item)`, `onRefused(error, item)`
 * and `onState(text, problem)` report. An item that is refused is dropped, one that can't be sent is
 * sent again. A page with unsaved items asks before it closes.
 */
export function openOutbox({ send, onSaved, onRefused, onState }) {
  const items = [];
  let busy = false;

  async function work() {
    if (busy) return;
    busy = true;
    while (items.length) {
      onState("saving ...", "");
      try {
        const result = await send(items[0]);
        onSaved(result, items.shift());
        if (!items.length) onState("saved", "");
      } catch (error) {
        if (error.status === 400) {
          onRefused(error, items.shift());
        } else {
          onState("not saved", `${items.length} not saved yet, sent again every 2 seconds: ${error.message}. `
            + "Is `cloudft ui` still running? After a restart open its new address: what was not saved is shown again.");
          await new Promise((done) => setTimeout(done, RETRY_MS));
          continue;
        }
      }
    }
    busy = false;
  }

  window.addEventListener("beforeunload", (event) => { if (items.length) event.preventDefault(); });
  return {
    add(item) { items.push(item); work(); },
    get items() { return items; },
  };
}
