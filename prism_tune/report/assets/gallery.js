"use strict";
// The gallery's controls: order, filters, search, marks, and the dialog of one record (`#<uid>`).
document.addEventListener("DOMContentLoaded", () => {
  const FOUND_AT_MOST = 600;
  const KEYS = { k: "keep", d: "drop", l: "look_again" };
  const section = document.getElementById("gallery");
  const by = (name) => document.getElementById(`gallery-${name}`);
  const form = by("form");
  const bar = by("progress");
  const { count } = PRISM.elements;
  let words = []; // that are searched for
  let group = null; // of near-duplicates, that alone is shown
  const pager = PRISM.makePager(section, {
    noun: "Records",
    perPage: PRISM.data.gallery.perPage,
    read: PRISM.records.record,
    fill: (record) => PRISM.cards.short(record, words),
  });

  function filter() {
    const { source, kept, cluster, mark } = form.elements;
    const code = (control) => (!control || control.value === "" ? null : Number(control.value));
    return {
      ...{ source: code(source), kept: code(kept), cluster: code(cluster), group },
      mark: mark.value || null,
    };
  }

  // --- views and search -------------------------------------------------------------------------
  async function showView() {
    const isWanted = pager.begin();
    bar.hidden = true;
    await PRISM.records.open();
    if (!isWanted()) return;
    const view = group === null ? form.elements.view.value : "groups";
    await pager.open(PRISM.records.list(view, filter()));
  }

  async function showFound(text) {
    const isWanted = pager.begin();
    bar.hidden = false;
    bar.value = 0;
    bar.max = PRISM.data.gallery.records;
    pager.say("Searching…");
    const found = await PRISM.records.search(words, filter(), FOUND_AT_MOST, (searched) => {
      bar.value = searched;
      return isWanted();
    });
    if (found === null) return;
    bar.hidden = true;
    const most = found.length === FOUND_AT_MOST ? "The first of many. " : "";
    await pager.open(found, `Found “${text}”. ${most}`);
  }

  // Where the filters are folded, their button says how many are set.
  function tellFilters() {
    const number = ["source", "kept", "cluster", "mark"].filter((name) => form.elements[name]?.value).length;
    by("filtered").textContent = number > 0 ? `Filters (${number})` : "Filters";
  }

  async function refresh() {
    tellFilters();
    const text = form.elements.text.value.trim();
    words = PRISM.words.parse(text);
    by("group").hidden = group === null;
    by("group").textContent = `Near-duplicates, group ${group}: show all again`;
    await (words.length > 0 ? showFound(text) : showView()).catch(pager.fail);
    tellMarks();
  }

  // A view shows all of its records.
  function leaveFound() {
    form.elements.text.value = "";
    group = null;
  }

  // --- marks --------------------------------------------------------------------------------------
  function tellMarks() {
    const marks = PRISM.marks;
    const number = marks.counts();
    const parts = marks.KINDS.map((kind) => `${count.format(number[kind])} ${marks.LABELS[kind].toLowerCase()}`);
    const kept = marks.isRemembered() ? "" : " This browser does not remember them: download them.";
    by("marks").textContent = marks.size() > 0 ? `Marked: ${parts.join(", ")}.${kept}` : "Nothing is marked.";
    by("listed").textContent = `All ${count.format(pager.rows().length)} listed:`;
    by("download").hidden = marks.size() === 0;
    by("clear").disabled = marks.size() === 0;
    by("undo").disabled = !marks.canUndo();
    for (const button of section.querySelectorAll(".mark[data-row]")) {
      const isOn = marks.of(Number(button.dataset.row)) === button.dataset.kind;
      button.setAttribute("aria-pressed", String(isOn));
    }
  }

  async function download() {
    const rows = PRISM.marks.listed();
    const content = {};
    for (const kind of PRISM.marks.KINDS) content[kind] = await PRISM.records.uidsOf(rows[kind]);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${JSON.stringify(content, null, 1)}\n`]));
    link.download = `marks-${PRISM.data.gallery.run.replace(/[^\w.-]+/g, "_")}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  async function load(file) {
    const content = JSON.parse(await file.text());
    const uids = PRISM.marks.KINDS.flatMap((kind) => content[kind] ?? []);
    const rows = await PRISM.records.rowsOf(uids);
    const unknown = PRISM.marks.add(content, (uid) => rows.get(uid));
    const lost = unknown > 0 ? `; ${count.format(unknown)} are of no record of this pool` : "";
    pager.say(`${count.format(uids.length - unknown)} marks read${lost}.`);
  }

  function press(button) {
    if (button.dataset.group) {
      group = Number(button.dataset.group);
      by("record").close();
      refresh();
    } else if (button.dataset.row) PRISM.marks.toggle(Number(button.dataset.row), button.dataset.kind);
    else if (button.dataset.all) PRISM.marks.set(pager.rows(), button.dataset.all === "none" ? null : button.dataset.all);
  }

  // --- events -----------------------------------------------------------------------------------
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    refresh();
  });
  form.addEventListener("change", (event) => {
    if (event.target.name === "view") leaveFound();
    if (event.target.name !== "text") refresh();
  });
  by("alone")?.addEventListener("click", () => {
    form.elements.view.value = "alone";
    leaveFound();
    refresh();
  });
  form.elements.text.addEventListener("search", refresh); // also when it is emptied
  section.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) press(button);
  });
  section.addEventListener("keydown", (event) => {
    const kind = KEYS[event.key.toLowerCase()];
    const isTyping = event.target.matches("input, select") || event.altKey || event.ctrlKey || event.metaKey;
    const own = event.target.closest(".card, dialog")?.querySelector(".mark[data-row]");
    if (kind && own && !isTyping) PRISM.marks.toggle(Number(own.dataset.row), kind);
  });
  by("group").addEventListener("click", () => {
    group = null;
    refresh();
  });
  by("download").addEventListener("click", () => download().catch(pager.fail));
  by("undo").addEventListener("click", PRISM.marks.undo);
  by("clear").addEventListener("click", PRISM.marks.clear);
  by("load").addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (file) load(file).catch((error) => pager.say(`${file.name}: no file of marks: ${error.message}`));
  });
  document.addEventListener("prism:marks", tellMarks);
  PRISM.marks.recall();
  PRISM.makeDialog(section, pager, {
    pattern: /^#([0-9a-f]{32})$/,
    read: ([, uid]) => PRISM.records.findUid(uid),
    title: (record) => record.id,
    fill: (record) => PRISM.recordDialog.fill(record, words),
    unknown: ([, uid]) => `No record of this pool has the uid ${uid}`,
    beside: async (record, step) => {
      const row = pager.beside(record.row, step);
      return row === undefined ? null : `#${(await PRISM.records.record(row)).uid}`;
    },
  });
  pager.whenNear(refresh);
});
