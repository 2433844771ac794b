"use strict";
// Tables with buttons in their headings are sorted by the column whose button is pressed.
(() => {
  const compared = (a, b) => {
    const numbers = [a, b].map(Number);
    return numbers.some(Number.isNaN) ? a.localeCompare(b) : numbers[0] - numbers[1];
  };
  // Not on the buttons: a page that follows a search replaces its table.
  document.addEventListener("click", event => {
    const heading = event.target.closest("table.sortable thead button")?.closest("th");
    if (!heading) return;
    const body = heading.closest("table").tBodies[0], headings = [...heading.parentElement.cells];
    const down = heading.getAttribute("aria-sort") === "ascending";
    const key = row => row.cells[headings.indexOf(heading)].dataset.key;
    // What has no value stays at the end, whichever way the others are sorted.
    const sorted = [...body.rows].sort((a, b) => {
      if (!key(a) || !key(b)) return !key(a) - !key(b);
      return (down ? -1 : 1) * compared(key(a), key(b));
    });
    headings.forEach(other => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...sorted);
  });
})();
