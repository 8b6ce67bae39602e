// What a page must hold for those who see little, or use the keyboard alone. Returns what does not, in sentences.
const wrong = [];
const check = (holds, what) => { if (!holds) wrong.push(what); };

check(document.documentElement.lang === "en", "no language");
check(document.querySelectorAll("h1").length === 1, "not one h1");
check(document.querySelectorAll("main").length === 1, "not one main");
check(document.documentElement.scrollWidth <= window.innerWidth, "wider than the screen: " + document.documentElement.scrollWidth);
for (const field of document.querySelectorAll("input:not([type=hidden]), select")) {
  check(field.labels.length === 1, "no label: " + field.outerHTML);
}
for (const button of document.querySelectorAll("button, a")) {
  check((button.getAttribute("aria-label") || button.textContent).trim() !== "", "no name: " + button.outerHTML);
}
for (const table of document.querySelectorAll("table")) {
  check(table.caption && table.caption.textContent, "a table without a caption");
  check([...table.querySelectorAll("th")].every((th) => th.scope), "a th without a scope");
}
for (const picture of document.querySelectorAll("svg:not([aria-hidden])")) {
  const names = (picture.getAttribute("aria-labelledby") || "").split(" ");
  check(names.every((id) => (document.getElementById(id) || {}).textContent), "a chart without words");
}
const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
check(new Set(ids).size === ids.length, "an id twice");
for (const resource of performance.getEntriesByType("resource")) {
  check(new URL(resource.name).origin === location.origin, "from another host: " + resource.name);
}

// WCAG 2.1, 1.4.3: the contrast of text.
const channels = (colour) => (colour.match(/[\d.]+/g) || []).map(Number);
const luminance = ([r, g, b]) => {
  const linear = [r, g, b].map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};
const ground = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const colour = channels(getComputedStyle(e).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
for (const element of document.querySelectorAll("body *")) {
  const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!hasText || element.closest("title, desc")) continue;
  const style = getComputedStyle(element);
  const [text, behind] = [element.closest("svg") ? style.fill : style.color, ground(element)];
  const [light, dark] = [luminance(channels(text)), luminance(behind)].sort((a, b) => b - a);
  const ratio = (light + 0.05) / (dark + 0.05);
  check(ratio >= 4.5, `contrast ${ratio.toFixed(2)} of ${element.tagName} ${element.textContent.slice(0, 40)}`);
}
return wrong;
