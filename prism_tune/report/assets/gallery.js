"use strict";
// The gallery's controls: order, filters, search, and the dialog of one record (`#<uid>`).
document.addEventListener("DOMContentLoaded", () => {
  const FOUND_AT_MOST = 600;
  const section = document.getElementById("gallery");
  const form = document.getElementById("gallery-form");
  const bar = document.getElementById("gallery-progress");
  const pager = PRISM.makePager(section, {
    noun: "Records",
    perPage: PRISM.data.gallery.perPage,
    read: PRISM.records.record,
    fill: PRISM.cards.short,
  });

  function filter() {
    const { source, kept } = form.elements;
    const code = (value) => (value === "" ? null : Number(value));
    return { source: code(source.value), kept: code(kept.value) };
  }

  // --- views and search -------------------------------------------------------------------------
  async function showView() {
    const isWanted = pager.begin();
    bar.hidden = true;
    await PRISM.records.open();
    if (!isWanted()) return;
    await pager.open(PRISM.records.list(form.elements.view.value, filter()));
  }

  async function showFound(text) {
    const isWanted = pager.begin();
    bar.hidden = false;
    bar.value = 0;
    bar.max = PRISM.data.gallery.records;
    pager.say("Searching…");
    const found = await PRISM.records.search(text, filter(), FOUND_AT_MOST, (searched) => {
      bar.value = searched;
      return isWanted();
    });
    if (found === null) return;
    bar.hidden = true;
    const most = found.length === FOUND_AT_MOST ? "The first of many. " : "";
    await pager.open(found, `Found “${text}”. ${most}`);
  }

  function refresh() {
    const text = form.elements.text.value.trim();
    (text ? showFound(text) : showView()).catch(pager.fail);
  }

  // --- events -----------------------------------------------------------------------------------
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    refresh();
  });
  form.addEventListener("change", (event) => {
    if (event.target.name === "view") form.elements.text.value = "";
    if (event.target.name !== "text") refresh();
  });
  form.elements.text.addEventListener("search", refresh); // also when it is emptied
  PRISM.makeDialog(section, pager, {
    pattern: /^#([0-9a-f]{32})$/,
    read: ([, uid]) => PRISM.records.findUid(uid),
    title: (record) => record.id,
    fill: PRISM.cards.full,
    unknown: ([, uid]) => `No record of this pool has the uid ${uid}`,
  });
  pager.whenNear(refresh);
});
