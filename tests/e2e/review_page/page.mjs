// Drives the review's page as a person does; prints what it saw as JSON.
//   node page.mjs URL judge|finish

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import chromium from "@sparticuz/chromium";
import puppeteer from "puppeteer-core";

const [url, what] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core"), "utf8");
const SIZES = [[1280, 800, "light"], [375, 667, "dark"], [320, 568, "light"]];
const faults = [];

const browser = await puppeteer.launch({
  args: [...chromium.args, "--no-sandbox"],
  executablePath: await chromium.executablePath(),
  headless: "shell",
});

async function open(width, height, scheme, bypassCSP = false) {
  const page = await browser.newPage();
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (message) => faults.push(message.text()));
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("data:")) faults.push(request.url());
  });
  await page.setBypassCSP(bypassCSP);
  await page.setViewport({ width, height });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(url);
  await page.waitForSelector("#work:not([hidden]), #end:not([hidden])");
  return page;
}

async function accessible() {
  const found = [];
  for (const [width, height, scheme] of SIZES) {
    const page = await open(width, height, scheme, true);
    await page.evaluate(axe);
    const result = await page.evaluate(() => axe.run());
    found.push(...result.violations.map((v) => `${v.impact}: ${v.id} at ${width} ${scheme}`));
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    if (wide > width) found.push(`scrolls sideways: ${wide} of ${width}`);
    await page.close();
  }
  return found;
}

const count = (page) => page.$eval("#count", (element) => element.textContent);
const saved = (page, text) =>
  page.waitForFunction((t) => document.getElementById("count").textContent === t, { timeout: 10000 }, text);

const seen = { axe: await accessible() };
if (what === "judge") {
  const page = await open(1280, 800, "light");
  seen.prompt = await page.$eval("#prompt", (element) => element.textContent);
  await page.keyboard.press("ArrowLeft");
  await saved(page, "1 of 4");
  await page.keyboard.press("t");
  await saved(page, "2 of 4");
  await page.keyboard.press("u");
  await page.waitForFunction(() => document.getElementById("tie").getAttribute("aria-pressed") === "true");
  await page.keyboard.press("n");
  await page.keyboard.type("not t, but b");
  await page.keyboard.press("Escape");
  await page.keyboard.press("b");
  await page.waitForFunction(() => document.getElementById("state").textContent === "saved"
    && document.getElementById("bad").getAttribute("aria-pressed") === "false");
  seen.count = await count(page);
} else {
  const page = await open(375, 667, "dark");
  seen.reopened = await count(page);
  for (const [button, after] of [["#left", "3 of 4"], ["#right", "4 of 4"]]) {
    await page.click(button);
    await saved(page, after);
  }
  seen.summary = await page.$eval("#summary", (element) => element.textContent);
}
await browser.close();
console.log(JSON.stringify({ ...seen, faults }));
