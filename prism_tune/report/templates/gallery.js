"use strict";
// The gallery's controls: order, filters, search, pages, and the dialog of one record (`#<uid>`).
document.addEventListener("DOMContentLoaded", () => {
  const FOUND_AT_MOST = 600;
  const PER_PAGE = PRISM.data.gallery.perPage;
  const UID = /^#[0-9a-f]{32}$/;
  const count = new Intl.NumberFormat("en-US");
  const by = (id) => document.getElementById(`gallery-${id}`);
  const section = document.getElementById("gallery");
  const [form, list, status, bar] = [by("form"), by("list"), by("status"), by("progress")];
  const [dialog, dialogBody, dialogTitle] = [by("record"), by("record-body"), by("record-title")];
  let rows = null; // of the view, filtered; null before the first
  let at = 0; // the page
  let job = 0; // what is being done; older jobs stop

  const say = (text) => (status.textContent = text);

  function fail(error) {
    say(`The gallery cannot be shown: ${error.message}`);
  }

  function filter() {
    const { source, kept } = form.elements;
    const code = (value) => (value === "" ? null : Number(value));
    return { source: code(source.value), kept: code(kept.value) };
  }

  // --- pages ------------------------------------------------------------------------------------
  async function show(page, lead = "") {
    job += 1;
    const mine = job;
    at = page;
    const first = page * PER_PAGE;
    const shown = [...rows.slice(first, first + PER_PAGE)];
    const records = await Promise.all(shown.map(PRISM.records.record));
    if (mine !== job) return;
    const hadFocus = list.contains(document.activeElement);
    list.replaceChildren(
      ...records.map((record) => {
        const item = document.createElement("li");
        item.className = "card";
        item.append(...PRISM.cards.short(record));
        return item;
      }),
    );
    if (hadFocus) list.focus({ preventScroll: true });
    const pages = Math.max(1, Math.ceil(rows.length / PER_PAGE));
    by("previous").disabled = page === 0;
    by("next").disabled = page >= pages - 1;
    by("page").textContent = `Page ${count.format(page + 1)} of ${count.format(pages)}`;
    const range = `${count.format(first + 1)} to ${count.format(first + shown.length)}`;
    const what = shown.length ? `Records ${range} of ${count.format(rows.length)}` : "No records";
    say(`${lead}${what}`);
  }

  function turn(step) {
    const page = at + step;
    if (rows === null || page < 0 || page * PER_PAGE >= rows.length) return;
    show(page).catch(fail);
  }

  // --- views and search -------------------------------------------------------------------------
  async function showView() {
    job += 1;
    const mine = job;
    bar.hidden = true;
    await PRISM.records.open();
    if (mine !== job) return;
    rows = PRISM.records.list(form.elements.view.value, filter());
    await show(0);
  }

  async function showFound(text) {
    job += 1;
    const mine = job;
    const total = PRISM.data.gallery.records;
    bar.hidden = false;
    bar.value = 0;
    bar.max = total;
    say("Searching…");
    const found = await PRISM.records.search(text, filter(), FOUND_AT_MOST, (searched) => {
      bar.value = searched;
      return mine === job;
    });
    if (found === null) return;
    bar.hidden = true;
    rows = found;
    const most = found.length === FOUND_AT_MOST ? "The first of many. " : "";
    await show(0, `Found “${text}”. ${most}`);
  }

  function refresh() {
    const text = form.elements.text.value.trim();
    (text ? showFound(text) : showView()).catch(fail);
  }

  // --- one record -------------------------------------------------------------------------------
  async function openRecord(uid) {
    const record = await PRISM.records.findUid(uid);
    if (location.hash !== `#${uid}`) return;
    if (record === null) {
      say(`No record of this pool has the uid ${uid}`);
      return;
    }
    dialogTitle.textContent = record.id;
    dialogBody.replaceChildren(...PRISM.cards.full(record));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    dialogTitle.focus();
  }

  function followHash() {
    if (UID.test(location.hash)) openRecord(location.hash.slice(1)).catch(fail);
    else if (dialog.open) dialog.close();
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
  by("text").addEventListener("search", refresh); // also when it is emptied
  by("previous").addEventListener("click", () => turn(-1));
  by("next").addEventListener("click", () => turn(1));
  section.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const isTyping = event.target.matches("input, select") || dialog.contains(event.target);
    if (!step || isTyping || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    turn(step);
  });
  by("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    if (UID.test(location.hash)) history.replaceState(null, "", "#gallery");
  });
  addEventListener("hashchange", followHash);

  const near = new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      near.disconnect();
      if (rows === null) refresh();
    },
    { rootMargin: "600px" },
  );
  near.observe(section);
  followHash();
});
