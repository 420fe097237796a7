"use strict";
// Puts the numbers of /live.json into the page that the server made. Texts only: nothing is parsed as markup.
(() => {
  const EVERY = 5000, SPOKEN = 30000;
  let said = Date.now(), next = 0;

  function table(name, rows) {
    const found = document.getElementById(name);
    const labels = [...found.tHead.rows[0].cells].map((cell) => cell.textContent);
    found.tBodies[0].replaceChildren(...rows.map((row) => {
      const line = document.createElement("tr");
      line.append(...row.map((text, at) => {
        const cell = document.createElement(at ? "td" : "th");
        if (at) cell.dataset.label = labels[at];
        else cell.scope = "row";
        cell.textContent = text;
        return cell;
      }));
      return line;
    }));
    found.hidden = !rows.length;
    for (const each of document.querySelectorAll(`[data-without=${name}]`)) each.hidden = rows.length > 0;
    for (const each of document.querySelectorAll(`[data-whole=${name}]`)) each.hidden = !rows.length;
  }

  function show(now) {
    for (const each of document.querySelectorAll("[data-live]")) {
      const text = now.texts[each.dataset.live];
      if (each.textContent !== text) each.textContent = text;
    }
    document.getElementById("used").value = now.used;
    table("jobs", now.jobs);
    table("warming", now.warming);
    // A screen reader is told in a sentence, and not at every change.
    if (Date.now() - said >= SPOKEN) {
      said = Date.now();
      document.getElementById("summary").textContent = now.summary;
    }
  }

  async function look() {
    clearTimeout(next);
    try {
      const answer = document.hidden ? null : await fetch("/live.json", { signal: AbortSignal.timeout(EVERY * 2) });
      if (answer && answer.status === 401) return location.reload();
      if (answer && answer.ok) {
        show(await answer.json());
        document.body.classList.remove("stale");
      }
    } catch {
      document.body.classList.add("stale");
    }
    clearTimeout(next);
    next = setTimeout(look, EVERY);
  }
  next = setTimeout(look, EVERY);
  document.addEventListener("visibilitychange", look);
})();
