// The page's few moves: tables sort on values, filters hide, a link opens what holds its target. Without it all stands as written.
const rows = (table) => [...table.tBodies[0].rows];
const key = (row, column) => {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  return text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const was = head.getAttribute("aria-sort");
      const up = was === "descending" || was === null && !head.classList.contains("number");
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const keyed = rows(table).map((row) => [key(row, column), row]);
      keyed.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en");
        return up ? order : -order;
      });
      table.tBodies[0].append(...keyed.map(([, row]) => row));
    });
  });
}
const filters = document.getElementById("filters");
filters.hidden = false;
filters.addEventListener("change", () => {
  for (const name of ["task", "cohort", "kind"]) {
    const wanted = filters.elements[name].value;
    for (const each of document.querySelectorAll(`[data-${name}]`)) {
      each.classList.toggle(`not-${name}`, wanted !== "" && each.dataset[name] !== wanted);
    }
  }
});
const reveal = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  if (target.closest(".not-task, .not-cohort, .not-kind")) { filters.reset(); filters.dispatchEvent(new Event("change")); }
  for (let each = target; each; each = each.parentElement) if (each.tagName === "DETAILS") each.open = true;
  target.scrollIntoView();
};
addEventListener("hashchange", reveal);
reveal();
const every = document.getElementById("every");
every.addEventListener("click", () => {
  const open = every.textContent === "Open all";
  for (const each of document.querySelectorAll("details")) each.open = open;
  every.textContent = open ? "Close all" : "Open all";
});
// On paper stands what answers (.paper) and what the reader opened.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")].filter((each) => each.matches(".paper, :has(.paper)"));
  for (const each of closed) each.open = true;
});
addEventListener("afterprint", () => { for (const each of closed) each.open = false; });
