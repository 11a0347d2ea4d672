// Tables sort by a click on a column's head; without JavaScript they stand as written. Paper shows what is folded away.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "descending" || head.getAttribute("aria-sort") === null && !head.classList.contains("number");
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "ascending" : "descending");
      const key = (row) => {
        const cell = row.cells[column];
        // "<10" counts as 10, and what is hidden stands last
        const text = (cell.dataset.value ?? cell.textContent.trim().replace(/,(?=\d{3})/g, "")).replace(/^(<|hidden$)/, "");
        return text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
      };
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => [key(row), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en");
        return down ? order : -order;
      });
      body.append(...rows.map(([, row]) => row));
    });
  });
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
