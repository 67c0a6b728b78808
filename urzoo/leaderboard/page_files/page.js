
"use strict";
// Sorting, filtering and opening rows. Text from result files only ever becomes text (textContent), never markup.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const sections = [...document.querySelectorAll("section.task")];
  const rows = [...document.querySelectorAll("table.rows > tbody > tr")].map((element) => ({
    element,
    section: element.closest("section.task"),
    model: element.dataset.model,
    gate: element.dataset.gate,
    cell: element.dataset.cell,
    kind: element.dataset.kind,
    parameters: element.dataset.parameters === "" ? null : Number(element.dataset.parameters),
  }));

  const make = (tag, text, className) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };

  // Provenance: parsed when the first row is opened, not when the page loads.
  let parsed = null;
  const provenance = () => (parsed ??= JSON.parse(document.getElementById("provenance").textContent));
  const words = (key) => key.replaceAll("_", " ");
  const shown = (value) => (value === null ? "not stated" : typeof value === "boolean" ? (value ? "yes" : "no") : String(value));

  const pairs = (object, prefix = "") =>
    Object.entries(object).flatMap(([key, value]) =>
      value !== null && typeof value === "object" ? pairs(value, `${prefix}${words(key)} `) : [[prefix + words(key), shown(value)]],
    );

  const group = (title, entries) => {
    const section = make("section");
    section.append(make("h4", title));
    const list = make("dl");
    for (const [name, value] of entries) list.append(make("dt", name), make("dd", value));
    section.append(list);
    return section;
  };

  const detail = (row) => {
    const record = provenance()[row.id];
    const holder = make("tr", undefined, "detail");
    const cell = make("td");
    cell.colSpan = row.cells.length;
    holder.append(cell);
    const inside = make("div", undefined, "inside");
    cell.append(inside);
    const command = make("div", undefined, "command");
    const code = make("pre", record.command);
    code.setAttribute("aria-label", "Command that reproduces this row");
    command.append(code);
    if (navigator.clipboard) {
      const link = location.href.replace(/#.*/, "") + `#${row.id}`;
      for (const [name, text] of [["Copy command", record.command], ["Copy link", link]]) {
        const copy = make("button", name);
        copy.type = "button";
        const say = (word) => {
          copy.textContent = word;
          setTimeout(() => { copy.textContent = name; }, 2000);
        };
        // A browser may refuse: then what was to be copied is shown selected, where it stands on the page.
        const refused = () => {
          if (text === record.command) getSelection().selectAllChildren(code);
          say("Not allowed");
        };
        copy.addEventListener("click", () => navigator.clipboard.writeText(text).then(() => say("Copied"), refused));
        command.append(copy);
      }
    }
    inside.append(command);
    const groups = make("div", undefined, "groups");
    const { model, task, data, metrics, intervals, command: _, ...run } = record.result;
    const { training, ...about } = model;
    groups.append(group("Model", pairs(about)));
    groups.append(group("Training", training === null ? [["record", "none; not one of urzoo's checkpoints"]] : pairs(training)));
    groups.append(group("Task and data", [...pairs({ task: task.name, task_version: task.version }), ...pairs(data)]));
    groups.append(group("Scores, as stored", [...pairs(metrics), ...pairs(intervals, "interval of ")]));
    groups.append(group("Evaluation", pairs(run)));
    inside.append(groups);
    if (record.link) {
      const source = make("a", "Result file");
      source.href = record.link;
      inside.append(source);
    }
    return holder;
  };

  const toggle = (row, open) => {
    const button = row.querySelector(".c-open button");
    if (!button) return;
    const next = row.nextElementSibling;
    const existing = next && next.classList.contains("detail") ? next : null;
    const wanted = open ?? !existing;
    button.setAttribute("aria-expanded", String(wanted));
    if (wanted && !existing) row.after(detail(row));
    if (!wanted && existing) existing.remove();
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest(".c-open button");
    if (button) toggle(button.closest("tr"));
    const link = event.target.closest('a[href^="#"]');
    // A second click on the same link changes no hash, and should still open the row.
    if (link && link.getAttribute("href") === location.hash) visit();
  });

  // Sorting: the head's cells become buttons; empty values stay last in both directions.
  const compare = (column, type, sign) => (left, right) => {
    const [a, b] = [left.cells[column], right.cells[column]].map((cell) => cell.dataset.v ?? cell.textContent.trim());
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * (type === "number" ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true }));
  };

  const sort = (head, column) => {
    const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", direction);
    const body = head.closest("table").tBodies[0];
    const order = [...body.rows].filter((row) => !row.classList.contains("detail"));
    order.sort(compare(column, head.dataset.type, direction === "ascending" ? 1 : -1));
    const sorted = document.createDocumentFragment();
    for (const row of order) {
      const next = row.nextElementSibling;
      sorted.append(row);
      if (next && next.classList.contains("detail")) sorted.append(next);
    }
    body.append(sorted);
  };

  for (const table of document.querySelectorAll("table.rows")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      if (!head.dataset.type) return;
      const button = make("button", head.textContent);
      button.type = "button";
      head.replaceChildren(button);
      button.addEventListener("click", () => sort(head, column));
    });
  }

  // Filtering. The state is kept in the address, so that a filtered view can be sent to someone.
  const form = document.querySelector(".filters");
  const output = form.querySelector("output");
  const fields = ["model", "task", "gate", "cell", "size", "kind"];

  const apply = () => {
    const wanted = Object.fromEntries(fields.map((name) => [name, form.elements[name].value]));
    const text = wanted.model.trim().toLowerCase();
    const [low, high] = wanted.size ? wanted.size.split("-") : ["", ""];
    const left = new Map(sections.map((section) => [section, 0]));
    let visible = 0;
    for (const row of rows) {
      const fits =
        (!text || row.model.includes(text)) &&
        (!wanted.task || row.section.dataset.task === wanted.task) &&
        (!wanted.gate || row.gate === wanted.gate) &&
        (!wanted.cell || row.cell === wanted.cell) &&
        (!wanted.kind || row.kind === wanted.kind) &&
        (!wanted.size || (row.parameters !== null && row.parameters > Number(low) && (high === "" || row.parameters <= Number(high))));
      if (row.element.hidden === fits) {
        row.element.hidden = !fits;
        if (!fits) toggle(row.element, false);
      }
      if (fits) {
        visible += 1;
        left.set(row.section, left.get(row.section) + 1);
      }
    }
    for (const section of sections) {
      section.hidden = wanted.task !== "" && section.dataset.task !== wanted.task;
      const empty = section.querySelector(".empty");
      if (empty) empty.hidden = left.get(section) > 0;
    }
    // Rows that were asked for do not stay folded away.
    if (fields.some((name) => name !== "task" && wanted[name])) {
      for (const folded of document.querySelectorAll("details")) folded.open = true;
    }
    output.textContent = `${visible} of ${rows.length} rows`;
    return wanted;
  };

  const changed = () => {
    const wanted = apply();
    const query = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value !== ""));
    const search = query.size ? `?${query}` : "";
    history.replaceState(null, "", location.pathname + search + location.hash);
  };

  form.addEventListener("input", changed);
  form.addEventListener("reset", () => setTimeout(changed));
  form.addEventListener("submit", (event) => event.preventDefault());

  const restore = () => {
    const query = new URLSearchParams(location.search);
    for (const name of fields) {
      const field = form.elements[name];
      const value = query.get(name) ?? "";
      if (field.tagName === "INPUT" || [...field.options].some((option) => option.value === value)) field.value = value;
    }
  };

  // Deep links: #task/model opens that row, whatever the filter hides.
  const visit = () => {
    for (const row of document.querySelectorAll("tr.linked")) row.classList.remove("linked");
    const row = document.getElementById(location.hash.slice(1));
    if (!row || row.tagName !== "TR") return;
    if (row.hidden || row.closest("section").hidden) {
      form.reset();
      changed();
    }
    const folded = row.closest("details");
    if (folded) folded.open = true;
    row.classList.add("linked");
    toggle(row, true);
    row.scrollIntoView({ block: "center" });
  };

  restore();
  apply();
  addEventListener("hashchange", visit);
  if (location.hash) visit();
})();
