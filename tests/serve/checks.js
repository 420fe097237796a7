// What can be checked of a page by itself. Each gives a list of what is wrong.
window.checks = (() => {
  const all = (what) => [...document.querySelectorAll(what)];

  function names(wrong) {
    for (const each of all("img")) if (!each.alt.trim()) wrong.push("no alt: " + each.src);
    for (const each of all("input:not([type=hidden]), select")) if (!each.labels.length) wrong.push("no label: " + each.id);
    for (const each of all("a[href], button, h1, h2, caption"))
      if (!each.textContent.trim() && !each.querySelector("img[alt]")) wrong.push("no text: " + each.outerHTML);
    for (const each of all("table")) if (!each.caption) wrong.push("no caption: " + each.id);
    for (const each of all("th")) if (!each.scope) wrong.push("no scope: " + each.textContent);
    for (const name of ["aria-labelledby", "aria-describedby"])
      for (const each of all(`[${name}]`))
        if (!document.getElementById(each.getAttribute(name))) wrong.push(`${name} of nothing`);
  }

  function order(wrong) {
    const levels = all("h1, h2, h3, h4").map((each) => Number(each.tagName[1]));
    const steps = levels.every((each, at) => !at || each <= levels[at - 1] + 1);
    if (levels[0] !== 1 || levels.filter((each) => each === 1).length !== 1 || !steps) wrong.push("headings: " + levels);
    const landmarks = all("main").length === 1 && all("header nav[aria-label]").length === 1;
    if (!landmarks || !document.title || !document.documentElement.lang) wrong.push("landmarks");
    const ids = all("[id]").map((each) => each.id);
    if (new Set(ids).size !== ids.length) wrong.push("an id twice: " + ids);
    const width = document.documentElement.scrollWidth;
    if (width > innerWidth) wrong.push("scrolls sideways: " + width);
  }

  const parsed = (text) => {
    const found = text.match(/[0-9.]+/g).map(Number);
    return found.length < 4 ? [...found, 1] : found;
  };

  // Relative luminance, WCAG 2.2.
  const light = (colour) => {
    const line = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.slice(0, 3).map((each) => line(each / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };

  function ground(each) {
    for (; each; each = each.parentElement) {
      const found = parsed(getComputedStyle(each).backgroundColor);
      if (found[3] === 1) return found;
    }
    return [255, 255, 255, 1];
  }

  function contrast() {
    const wrong = [];
    let seen = 0;
    for (const each of all("body *")) {
      const text = [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
      if ((!text && each.tagName !== "INPUT") || each.tagName === "OPTION" || !each.checkVisibility()) continue;
      seen += 1;
      const [a, b] = [light(parsed(getComputedStyle(each).color)), light(ground(each))].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      if (ratio < 4.5) wrong.push(`${ratio.toFixed(2)}: ${each.tagName} ${each.textContent.trim().slice(0, 40)}`);
    }
    return seen > 3 ? wrong : ["no text was seen"];
  }

  // Numbers everything that a key can reach, in the order it stands.
  function reachable() {
    const found = all("a[href], button, input:not([type=hidden]), select, [tabindex='0']");
    return found.filter((each) => each.checkVisibility()).map((each, at) => (each.dataset.at = String(at), at));
  }

  // The number of what has the focus, and whether that can be seen.
  function focused() {
    const each = document.activeElement, style = getComputedStyle(each);
    return [Number(each.dataset.at ?? -1), style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];
  }

  function shape() {
    const wrong = [];
    names(wrong);
    order(wrong);
    return wrong;
  }

  return { shape, contrast, reachable, focused };
})();
