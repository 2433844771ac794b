"use strict";
// Tables with buttons in their headings are sorted by the column whose button is pressed.
document.querySelectorAll("table.sortable").forEach(table => {
  const body = table.tBodies[0], headings = [...table.tHead.rows[0].cells];
  const compared = (a, b) => {
    const numbers = [a, b].map(Number);
    return numbers.some(Number.isNaN) ? a.localeCompare(b) : numbers[0] - numbers[1];
  };
  headings.forEach((heading, place) => heading.querySelector("button").addEventListener("click", () => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    const key = row => row.cells[place].dataset.key;
    // What has no value stays at the end, whichever way the others are sorted.
    const sorted = [...body.rows].sort((a, b) => {
      if (!key(a) || !key(b)) return !key(a) - !key(b);
      return (down ? -1 : 1) * compared(key(a), key(b));
    });
    headings.forEach(other => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...sorted);
  }));
});
