// A sweep: ranges on the axes leave out trials; a row marks its line; live while the sweep runs.
import { follow } from "./live.js";

const place = document.getElementById("sweep");
let chosen = {};

/** Return the elements of a part that the server has rendered, every value in it escaped. */
function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

/** Fade the lines and rows of trials that are outside of a range. */
function narrow() {
  const lines = [...place.querySelectorAll("polyline[data-at]")];
  let shown = 0;
  for (const line of lines) {
    const at = line.dataset.at.split(" ").map(Number);
    const inside = at.every((value, axis) => {
      const low = chosen[`${axis} low`] ?? 0;
      const high = chosen[`${axis} high`] ?? 100;
      return value >= Math.min(low, high) && value <= Math.max(low, high);
    });
    shown += inside;
    line.classList.toggle("out", !inside);
    place.querySelector(`tr[data-trial="${line.dataset.trial}"]`)?.classList.toggle("out", !inside);
  }
  const output = place.querySelector(".brushes output");
  if (output) output.textContent = `${shown} of ${lines.length} trials`;
}

/** Set the ranges of a part that was just put in its place. */
function begin() {
  const form = place.querySelector(".brushes");
  if (!form) return;
  form.hidden = false;
  for (const input of form.querySelectorAll("input")) {
    input.value = chosen[`${input.dataset.axis} ${input.dataset.end}`] ?? input.defaultValue;
  }
  narrow();
}

place.addEventListener("input", ({ target }) => {
  if (!target.matches(".brushes input")) return;
  chosen[`${target.dataset.axis} ${target.dataset.end}`] = Number(target.value);
  narrow();
});
place.addEventListener("reset", () => { chosen = {}; setTimeout(narrow); });
place.addEventListener("submit", (event) => event.preventDefault());
for (const [name, isOn] of [["pointerover", true], ["pointerout", false], ["focusin", true], ["focusout", false]]) {
  place.addEventListener(name, ({ target }) => {
    const trial = target.closest?.("tr[data-trial]")?.dataset.trial;
    if (trial !== undefined) place.querySelector(`polyline[data-trial="${trial}"]`)?.classList.toggle("marked", isOn);
  });
}

begin();
if (place.dataset.live) {
  follow(place.dataset.live, { sweep: (html) => {
    const focused = document.activeElement?.closest(".brushes input");
    const key = focused && `input[data-axis="${focused.dataset.axis}"][data-end="${focused.dataset.end}"]`;
    place.replaceChildren(parse(html));
    begin();
    if (key) place.querySelector(key)?.focus({ preventScroll: true });
  } });
}
