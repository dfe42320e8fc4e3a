"use strict";
// The pages work without this script; it adds sorting, filters, copying and the viewer of texts.
// It never sets HTML: every text of a record becomes a text node.

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function announce(text) {
  const status = document.getElementById("status");
  status.textContent = text;
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => { status.textContent = ""; }, 2500);
}

// Sorting: a button in each heading; empty cells stay last.
function sortBy(table, heading) {
  const headings = [...heading.parentNode.children];
  const column = headings.indexOf(heading);
  const isNumber = "number" in heading.dataset;
  const descending = heading.ariaSort ? heading.ariaSort === "ascending" : isNumber;
  headings.forEach((other) => other.removeAttribute("aria-sort"));
  heading.ariaSort = descending ? "descending" : "ascending";
  const key = (row) => row.children[column].dataset.value;
  const compare = isNumber ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", { numeric: true });
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");
    return descending ? compare(key(b), key(a)) : compare(key(a), key(b));
  });
  table.tBodies[0].append(...rows);
}

function makeSortable(table) {
  for (const heading of table.querySelectorAll("th[data-column]")) {
    const text = heading.querySelector(".heading");
    const button = element("button", { type: "button", className: "sort" }, text.textContent);
    button.addEventListener("click", () => sortBy(table, heading));
    text.replaceWith(button);
  }
}

// Filters: a row is shown if it has the chosen value of each.
function makeFilters(form, table) {
  const apply = () => {
    const chosen = [...form.elements].filter((field) => field.name && field.value);
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      row.hidden = !chosen.every((field) => row.dataset[field.name] === field.value);
      shown += !row.hidden;
    }
    form.querySelector("output").value = `${shown} of ${table.tBodies[0].rows.length} rows`;
  };
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  apply();
}

// Copying: a page that was opened as a file may lack the clipboard, but can select.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = element("textarea", { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  announce("Copied");
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button.dataset.copy);
});
for (const table of document.querySelectorAll("table.models")) {
  makeSortable(table);
  const form = table.closest("section").querySelector("form.filters");
  if (form) makeFilters(form, table);
}
