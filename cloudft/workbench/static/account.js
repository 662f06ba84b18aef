// "Look at the account" without leaving the page: reading an account takes seconds, so it counts them.
import { address } from "./live.js";

const cloud = document.getElementById("cloud");

async function look(link) {
  const progress = document.getElementById("progress");
  const began = performance.now();
  const show = () => {
    progress.textContent = `Looking at Bedrock and SageMaker: ${Math.floor((performance.now() - began) / 1000)} s`;
  };
  show();
  link.setAttribute("aria-disabled", "true");
  const timer = setInterval(show, 1000);
  try {
    const response = await fetch(address("/account/cloud"), { headers: { accept: "application/json, text/html" } });
    const text = await response.text();
    if (!response.ok) {
      const error = JSON.parse(text).error;
      throw new Error([error.message, error.fix].filter(Boolean).join(": "));
    }
    // The server has escaped every value; a parsed document runs no script.
    cloud.replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
    cloud.querySelector("#progress").textContent = `Looked at ${new Date().toLocaleTimeString()}`;
  } catch (error) {
    progress.textContent = `Could not look: ${error.message}`;
    link.removeAttribute("aria-disabled");
  } finally {
    clearInterval(timer);
  }
}

cloud.addEventListener("click", (event) => {
  const link = event.target.closest("[data-look]");
  if (!link || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  if (link.getAttribute("aria-disabled") !== "true") look(link);
});
