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

// Sorting: a button in each heading and, for a phone that shows no headings, a choice of the column.
function sortBy(table, heading, isDescending) {
  const column = [...heading.parentNode.children].indexOf(heading);
  const isNumber = "number" in heading.dataset;
  for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
  const key = (row) => row.children[column].dataset.value;
  const compare = isNumber ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", { numeric: true });
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");  // empty: last
    return isDescending ? compare(key(b), key(a)) : compare(key(a), key(b));
  });
  table.tBodies[0].append(...rows);
}

function makeSortable(table, form) {
  const headings = [...table.querySelectorAll("th[data-column]")];
  const select = element("select", { name: "" }, new Option("order of the page", ""));
  const rows = [...table.tBodies[0].rows];
  headings.forEach((heading, index) => {
    const text = heading.querySelector(".heading");
    const button = element("button", { type: "button", className: "sort" }, text.textContent);
    button.addEventListener("click", () => {
      const isNumber = "number" in heading.dataset;
      const before = heading.getAttribute("aria-sort");
      sortBy(table, heading, before ? before === "ascending" : isNumber);
    });
    text.replaceWith(button);
    select.append(new Option(button.textContent, index));
  });
  select.addEventListener("input", () => {
    const heading = headings[select.value];
    if (select.value) sortBy(table, heading, "number" in heading.dataset);
    else table.tBodies[0].append(...rows);
  });
  form.querySelector("[type=reset]").before(element("label", {}, "sort by ", select));
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
  const form = table.closest("section").querySelector("form.filters");
  makeSortable(table, form);
  makeFilters(form, table);
}

// The texts: rows of two models next to each other.
const ROWS_AT_ONCE = 200;
const OUTCOMES = { r: "held", f: "fell", w: "wrong before the attack" };

function options(select, values, chosen) {
  select.replaceChildren(...values.map(([value, text]) => new Option(text, value)));
  if (chosen !== undefined) select.value = chosen;
}

// The original text with each edit as struck out and inserted words.
function edited(text, edits) {
  const parts = element("p", { dir: "auto" });
  let done = 0;
  for (const [start, end, inserted] of edits) {
    parts.append(text.slice(done, start));
    if (end > start) parts.append(element("del", {}, text.slice(start, end)));
    if (inserted) parts.append(element("ins", {}, inserted));
    done = end;
  }
  parts.append(text.slice(done));
  return parts;
}

function answerOf(set, model, name, index) {
  const [outcome, before, after, queries, edits, similarity] = model.rows[index];
  const label = (answer) => (answer === null ? "?" : set.labels[answer] ?? answer);
  const facts = [`answer ${label(before)} → ${label(after)}`];
  if (queries !== null) facts.push(`${queries} queries`);
  if (similarity !== null) facts.push(`similarity ${similarity.toFixed(2)}`);
  return element("div", { className: `answer ${outcome}` },
    element("p", { className: "facts" },
      element("b", {}, `${name} ${OUTCOMES[outcome]}`), ` · ${facts.join(" · ")}`),
    edited(set.rows[index].text, edits));
}

function rowOf(set, models, index) {
  const { id, label, text, context } = set.rows[index];
  const row = element("article", { className: "row" },
    element("p", { className: "facts" }, `${id} · label ${set.labels[label] ?? label}`));
  if (context) row.append(element("p", { className: "context", dir: "auto" }, context));
  row.append(element("p", { className: "original", dir: "auto" }, text));
  const answers = models.map((model, i) => answerOf(set, model, "AB"[i], index));
  row.append(element("div", { className: "two" }, ...answers));
  return row;
}

function makeTexts(section, sets) {
  const form = section.querySelector("form");
  const list = section.querySelector(".rows");
  const more = section.querySelector(".more");
  const field = (name) => form.elements.namedItem(name);
  let matching = [];
  const current = () => {
    const set = sets[field("set").value];
    const chosen = [field("a").value, field("b").value].filter((name) => name !== "");
    return [set, chosen.map((index) => set.models[index])];
  };
  const matches = (set, models, index) => {
    const wanted = field("outcome").value;
    const outcomes = models.map((model) => model.rows[index][0]).join("");
    if (wanted === "w" ? !outcomes.includes("w") : wanted && outcomes !== wanted) return false;
    const label = field("label").value;
    if (label && String(set.rows[index].label) !== label) return false;
    return set.rows[index].text.toLowerCase().includes(field("words").value.toLowerCase());
  };
  const showMore = () => {
    const [set, models] = current();
    const shown = list.children.length;
    const next = matching.slice(shown, shown + ROWS_AT_ONCE);
    list.append(...next.map((index) => rowOf(set, models, index)));
    more.hidden = list.children.length === matching.length;
  };
  const show = () => {
    const [set, models] = current();
    matching = set.rows.map((_, index) => index).filter((i) => matches(set, models, i));
    form.querySelector("output").value = `${matching.length} of ${set.rows.length} rows`;
    list.replaceChildren();
    showMore();
  };
  const choose = () => {
    const set = sets[field("set").value];
    const models = set.models.map((model, index) => [index, model.name]);
    options(field("a"), models, set.pair[0]);
    options(field("b"), [...models, ["", "none"]], set.pair[1] ?? "");
    const present = [...new Set(set.rows.map((row) => row.label))].sort((a, b) => a - b);
    options(field("label"), [["", "all"], ...present.map((i) => [i, set.labels[i] ?? i])], "");
    show();
  };
  options(field("set"), sets.map((set, index) => [index, set.name]), 0);
  field("set").addEventListener("input", choose);
  field("swap").addEventListener("click", () => {
    if (field("b").value === "") return;
    [field("a").value, field("b").value] = [field("b").value, field("a").value];
    show();
  });
  form.addEventListener("input", (event) => { if (event.target !== field("set")) show(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", showMore);
  form.hidden = false;
  choose();
}

const texts = document.getElementById("texts-data");
if (texts) makeTexts(texts.closest("section"), JSON.parse(texts.textContent));
