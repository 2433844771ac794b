"use strict";
// Draws the charts as they come near the window, and unpacks the tables. `lratlas` is what live.js needs of it.
const lratlas = (() => {
  const NARROW = 680; // pixels, below which panels stand one below the other
  const FULL = 950; // pixels, below which charts are narrower than they are drawn
  const texts = new Map(); // chart name → its spec as text, once unpacked
  const views = new Map(); // chart name → what vegaEmbed made

  const unpacked = async id => {
    const packed = Uint8Array.from(atob(document.getElementById(id).textContent), letter => letter.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).blob();
  };
  const specText = async name => {
    if (!texts.has(name)) texts.set(name, await (await unpacked("spec-" + name)).text());
    return texts.get(name);
  };

  // currentColor follows the page into dark mode and onto paper without another drawing.
  const ink = "currentColor";
  const axis = { labelColor: ink, titleColor: ink, tickColor: ink, domainColor: ink, gridColor: ink,
    tickOpacity: .45, domainOpacity: .45, gridOpacity: .15 };
  const look = { background: "transparent", axis, legend: { labelColor: ink, titleColor: ink, labelOverlap: "greedy" }, header: { labelColor: ink, titleColor: ink }, rule: { color: ink },
    title: { color: ink, subtitleColor: ink }, text: { color: ink }, mark: { aria: false } };

  const fitted = (spec, room) => {
    if (room >= FULL) return spec;
    const { hconcat, concat, columns, ...rest } = spec;
    const panels = hconcat ?? concat, isPicture = panel => panel.mark?.type === "image";
    if (room >= NARROW) {
      const sized = panel => isPicture(panel) || !panel.width ? panel : { ...panel, width: Math.round(panel.width * room / FULL) };
      return panels ? { ...spec, [hconcat ? "hconcat" : "concat"]: panels.map(sized) } : sized(spec);
    }
    const width = Math.max(200, room - 75);
    rest.config = { ...rest.config, legend: { ...rest.config?.legend, orient: "bottom", columns: 2 } };
    if (panels) return { ...rest, vconcat: panels.map(panel => isPicture(panel) ? panel : { ...panel, width }) };
    // There is no room for the names of lines next to the panel: they are in its upper right corner.
    const corner = { x: { value: { expr: "width" } }, y: { value: { expr: "48 + 18 * datum.place" } } };
    const marks = { text: { align: "right", dx: -26 }, tick: { xOffset: -14 } };
    const inside = part => part.mark?.type in marks && (part.mark.xOffset > 0 || part.mark.align === "left" && part.encoding?.text?.field === "label")
      ? { ...part, mark: { ...part.mark, ...marks[part.mark.type] }, encoding: { ...part.encoding, ...corner } } : part;
    return { ...rest, layer: rest.layer?.map(inside), width: Math.min(width, spec.width ?? width) };
  };

  const controls = place => [...place.querySelectorAll("form.vega-bindings [name]")];
  const isBox = control => ["radio", "checkbox"].includes(control.type);
  const chosen = place => controls(place).map(({ name, type, value, checked }) => ({ name, type, value, checked }));
  const choose = (place, before) => {
    for (const old of before) {
      const box = isBox(old);
      const same = controls(place).find(now => now.name === old.name && (old.type !== "radio" || now.value === old.value));
      const offered = same && (same.tagName !== "SELECT" || [...same.options].some(option => option.value === old.value));
      if (!offered || (box ? same.checked === old.checked : same.value === old.value)) continue;
      if (box) same.checked = old.checked; else same.value = old.value;
      for (const event of ["input", "change"]) same.dispatchEvent(new Event(event, { bubbles: true }));
    }
  };

  // The LR that a reader points at is shown in every chart that is drawn.
  const POINTED = "lr_pointed_at";
  let pointed = 0, waiting = 0;
  const lrOf = mark => {
    const lr = mark?.datum?.plr;
    const several = mark?.mark?.marktype === "line" && mark.mark.items[0].datum.plr !== mark.mark.items.at(-1).datum.plr;
    return typeof lr === "number" && !several && !mark.datum.label ? lr : 0; // the name of a line is at no LR
  };
  const pointAt = lr => {
    if (lr === pointed) return;
    pointed = lr;
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => {
      for (const { view } of views.values()) if (POINTED in view.getState({ signals: name => name === POINTED }).signals) view.signal(POINTED, pointed).runAsync();
    });
  };

  const draw = async figure => {
    const place = figure.querySelector(".chart"), name = place.dataset.chart;
    try {
      const spec = JSON.parse(texts.get(name) ?? await specText(name));
      const before = chosen(place);
      // The words for the whole chart stand on its group; the drawing itself goes by its heading.
      const described = { ...fitted(spec, place.parentElement.clientWidth), description: figure.querySelector("h3").textContent };
      described.config = { ...described.config, font: getComputedStyle(document.body).fontFamily };
      views.get(name)?.finalize();
      const made = await vegaEmbed(place, described, { renderer: "svg", config: look, tooltip: { theme: "custom", disableDefaultStyle: true },
        actions: { export: true, source: false, compiled: false, editor: false }, downloadFileName: name });
      views.set(name, made);
      made.view.addEventListener("pointermove", (_, mark) => pointAt(lrOf(mark)));
      made.view.addEventListener("pointerout", () => pointAt(0));
      const form = place.querySelector("form.vega-bindings");
      if (form) place.prepend(form);
      const menu = place.querySelector("details > summary");
      menu.setAttribute("aria-label", "Save the chart: " + described.description);
      menu.title = "Save the chart";
      choose(place, before);
      await made.view.runAsync();
    } catch (error) {
      place.textContent = "This chart could not be drawn: " + error.message;
    }
    figure.dataset.drawn = "true";
  };

  const begun = new WeakMap(); // figure → the promise of its last drawing
  const drawOnce = figure => {
    if (!begun.has(figure)) begun.set(figure, draw(figure));
    return begun.get(figure);
  };
  const drawAgain = figure => {
    if (begun.has(figure)) begun.set(figure, begun.get(figure).then(() => draw(figure)));
    return begun.get(figure);
  };
  const figures = () => [...document.querySelectorAll(".charts figure")];

  let first = true;
  const observer = new IntersectionObserver(async seen => {
    const near = seen.filter(entry => entry.isIntersecting).map(entry => entry.target);
    const initial = first;
    first = false;
    near.forEach(figure => observer.unobserve(figure));
    await Promise.all(near.map(drawOnce));
    if (initial) document.documentElement.dataset.drawn = "true";
  }, { rootMargin: "500px 0px" });
  const watch = figure => observer.observe(figure);

  figures().forEach(watch);
  if (!figures().length) document.documentElement.dataset.drawn = "true";

  // Unpacked beforehand, since printing does not wait; what is left to do in beforeprint is done at once.
  const unpackAll = async () => { for (const figure of figures()) await specText(figure.querySelector(".chart").dataset.chart); };
  addEventListener("load", () => (window.requestIdleCallback ?? setTimeout)(unpackAll));
  const folded = () => [...document.querySelectorAll("main details:not(.chart *)")];
  let unfolded = [];
  addEventListener("beforeprint", () => {
    figures().forEach(drawOnce);
    unfolded = folded().filter(each => !each.open);
    unfolded.forEach(each => { each.open = true; });
  });
  addEventListener("afterprint", () => unfolded.forEach(each => { each.open = false; }));

  let width = innerWidth, resizing;
  addEventListener("resize", () => {
    clearTimeout(resizing);
    resizing = setTimeout(() => {
      if (innerWidth === width || Math.min(width, innerWidth) >= FULL + 60) return;
      width = innerWidth;
      figures().forEach(drawAgain);
    }, 200);
  });

  // Browsers break lines after the hyphen of 1e-2.
  const keepNumbers = part => {
    const found = [], walker = document.createTreeWalker(part, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) if (/\de-\d/.test(walker.currentNode.data)) found.push(walker.currentNode);
    for (const text of found) {
      const pieces = text.data.split(/([\d.]*\de-\d+)/).map((piece, i) => {
        if (i % 2 === 0) return piece;
        return Object.assign(document.createElement("span"), { className: "number", textContent: piece });
      });
      text.replaceWith(...pieces);
    }
  };
  document.querySelectorAll("#answer, #regimes, #verdicts, #found").forEach(keepNumbers);

  const say = text => { document.getElementById("status").textContent = text; };
  document.addEventListener("click", async event => {
    const button = event.target.closest("button[data-table]");
    if (!button) return;
    const table = button.dataset.table;
    button.disabled = true;
    try {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([await unpacked("csv-" + table)], { type: "text/csv" }));
      link.download = table + ".csv";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    } catch (error) {
      say(table + ".csv could not be unpacked: " + error.message);
    }
    button.disabled = false;
    button.focus();
  });

  // For live.js: a figure whose spec is another one, and one that takes the place of another with its drawing in it.
  const redraw = figure => {
    texts.delete(figure.querySelector(".chart").dataset.chart);
    return drawAgain(figure);
  };
  const adopt = async (figure, old) => {
    if (!begun.has(old)) { watch(figure); return; }
    begun.set(figure, begun.get(old));
    await begun.get(old);
    figure.dataset.drawn = "true";
  };
  return { say, watch, redraw, adopt, keepNumbers };
})();
