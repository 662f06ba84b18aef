// Opens written pages as a phone and a desk do, with everything folded open; prints faults as JSON.
//   node static_pages.mjs FILE...

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import chromium from "@sparticuz/chromium";
import puppeteer from "puppeteer-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core"), "utf8");
const faults = [];

const browser = await puppeteer.launch({
  args: [...chromium.args, "--no-sandbox"],
  executablePath: await chromium.executablePath(),
  headless: "shell",
});
for (const file of process.argv.slice(2)) {
  const url = pathToFileURL(file).href;
  for (const [width, scheme] of [[1280, "light"], [390, "dark"], [390, "light"]]) {
    const page = await browser.newPage();
    const fault = (text) => faults.push(`${file} at ${width} ${scheme}: ${text}`);
    page.on("pageerror", (error) => fault(error.message));
    page.on("console", (message) => fault(message.text()));
    page.on("request", (request) => {
      if (request.url() !== url && !request.url().startsWith("data:")) fault(request.url());
    });
    await page.setBypassCSP(width === 390 && scheme === "dark");  // axe is a script, and pages have none
    await page.setViewport({ width, height: 844 });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await page.goto(url);
    const seen = await page.evaluate(() => {
      for (const element of document.querySelectorAll("details")) element.open = true;
      const root = document.documentElement;
      return { wide: root.scrollWidth, ground: getComputedStyle(document.body).backgroundColor };
    });
    if (seen.wide > width) fault(`scrolls sideways: ${seen.wide}`);
    if (seen.ground !== { light: "rgb(255, 255, 255)", dark: "rgb(14, 17, 22)" }[scheme]) fault(seen.ground);
    if (width === 390 && scheme === "dark") {
      await page.evaluate(axe);
      const result = await page.evaluate(() => axe.run());
      for (const v of result.violations) fault(`${v.impact}: ${v.id}, ${v.nodes[0].html.slice(0, 100)}`);
    }
    await page.close();
  }
}
await browser.close();
console.log(JSON.stringify(faults));
