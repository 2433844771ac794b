"use strict";
// Follows a running study or search: asks for `version`, and where that changed shows the parts of the page that changed.
(() => {
  const EVERY = 3000; // milliseconds
  const main = document.querySelector("main");
  const source = new WeakMap(); // a part of the page → its HTML as it came, before anything was drawn in it
  const remember = part => {
    source.set(part, part.outerHTML);
    if (part.matches(".charts")) for (const child of part.children) source.set(child, child.outerHTML);
  };
  for (const part of main.children) remember(part);

  const fetched = async address => {
    const answer = await fetch(address, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    return answer.text();
  };

  // Drawings stay where they are until the new ones are there, so that nothing jumps.
  const replace = (old, part) => {
    const drawing = old.querySelector(":scope .chart");
    remember(part);
    if (part.matches("figure")) part.querySelector(".chart").replaceWith(drawing);
    const folded = part.querySelectorAll("details");
    old.querySelectorAll("details").forEach((each, i) => { if (folded[i] && !each.closest(".chart")) folded[i].open = each.open; });
    old.replaceWith(part);
    if (part.matches("#answer, #regimes, #verdicts, #found")) lratlas.keepNumbers(part);
    if (part.matches("figure")) lratlas.adopt(part, old);
  };
  const merge = (old, fresh) => {
    const rest = new Map([...old.children].map(part => [part.id, part]));
    let place = old.firstElementChild, changed = 0;
    for (const part of [...fresh.children]) {
      const known = rest.get(part.id);
      rest.delete(part.id);
      if (!known) {
        remember(part);
        old.insertBefore(part, place);
        if (part.matches("figure")) lratlas.watch(part);
        changed += 1;
        continue;
      }
      let now = known;
      if (part.matches(".charts")) changed += merge(known, part);
      else if (source.get(known) !== part.outerHTML) {
        replace(known, part);
        now = part;
        changed += 1;
      }
      place = now.nextElementSibling;
    }
    for (const gone of rest.values()) gone.remove();
    return changed + rest.size;
  };

  const mergeData = fresh => {
    const changed = new Set(), kind = "script[type='text/plain']";
    const old = new Map([...document.querySelectorAll(kind)].map(script => [script.id, script]));
    for (const script of fresh.querySelectorAll(kind)) {
      const known = old.get(script.id);
      old.delete(script.id);
      if (known?.textContent === script.textContent) continue;
      changed.add(script.id);
      if (known) known.textContent = script.textContent; else document.body.append(script);
    }
    for (const gone of old.values()) gone.remove();
    return changed;
  };

  // What the reader looks at: the part with the focus if it is in view, else the one at the top.
  const lookedAt = () => {
    const parts = [...document.querySelectorAll("main > :not(.charts), .charts > *")];
    const inView = part => { const { top, bottom } = part.getBoundingClientRect(); return bottom > 60 && top < innerHeight; };
    const part = parts.find(part => part.contains(document.activeElement) && inView(part)) ?? parts.find(inView);
    return part && { id: part.id, top: part.getBoundingClientRect().top };
  };
  const scrollBack = before => {
    const part = before && document.getElementById(before.id);
    if (part) scrollBy({ top: part.getBoundingClientRect().top - before.top, behavior: "instant" });
  };
  const address = node => {
    if (!main.contains(node)) return null;
    if (node.id) return "#" + CSS.escape(node.id);
    const known = ["name", "value", "data-table", "href", "aria-label"].filter(name => node.hasAttribute(name));
    const facts = known.map(name => `[${name}="${CSS.escape(node.getAttribute(name))}"]`).join("");
    return `#${CSS.escape(node.closest("[id]").id)} ${node.localName}${facts}`;
  };

  const refresh = async () => {
    const fresh = new DOMParser().parseFromString(await fetched("./"), "text/html");
    const before = lookedAt(), focus = address(document.activeElement);
    const data = mergeData(fresh);
    const changed = merge(main, fresh.querySelector("main"));
    scrollBack(before);
    const stale = [...document.querySelectorAll(".charts figure")]
      .filter(figure => data.has("spec-" + figure.querySelector(".chart").dataset.chart));
    await Promise.all(stale.map(lratlas.redraw));
    scrollBack(before);
    if (focus && document.activeElement === document.body) main.querySelector(focus)?.focus({ preventScroll: true });
    const state = main.querySelector(".progress")?.textContent ?? "finished";
    if (changed + data.size) lratlas.say(`Updated at ${new Date().toLocaleTimeString()}: ${state}.`);
  };

  let known = null, lost = false; // the first version may be newer than the page, so that one is looked at too
  const poll = async () => {
    try {
      if (document.visibilityState === "visible") {
        const version = await fetched("version");
        if (version !== known || lost) await refresh();
        known = version;
        lost = false;
      }
    } catch (error) {
      if (!lost) lratlas.say("lratlas serve no longer responds; this is its last state.");
      lost = true;
    }
    setTimeout(poll, EVERY);
  };
  addEventListener("load", poll);
})();
