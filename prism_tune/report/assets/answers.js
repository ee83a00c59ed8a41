"use strict";
// The controls of the answers: benchmark, filters, search, the other run, and the dialog of one
// question (`#question/<benchmark>/<row>`).
document.addEventListener("DOMContentLoaded", () => {
  const meta = PRISM.data.answers;
  const section = document.getElementById("answers");
  const form = document.getElementById("answers-form");
  const { benchmark, category, verdict, other, change, text } = form.elements;
  const { count } = PRISM.elements;
  const pager = PRISM.makePager(section, {
    noun: "Questions",
    perPage: meta.perPage,
    read: PRISM.answers.question,
    fill: (question) => PRISM.answerCards.short(question, words),
  });
  let opened = ""; // what is open: benchmark and other run
  let words = []; // that are searched for

  const code = (control) => (!control || control.value === "" ? null : Number(control.value));

  // --- what can be chosen -------------------------------------------------------------------------
  // Only runs that have the benchmark can be compared with.
  function offerRuns() {
    if (!other) return;
    const has = meta.benchmarks[code(benchmark)].others;
    for (const option of other.options) {
      option.disabled = option.value !== "" && !has.includes(Number(option.value));
    }
    if (other.selectedOptions[0].disabled) other.value = has.length ? String(has[0]) : "";
    other.disabled = has.length === 0;
  }

  function offerCategories() {
    const names = PRISM.answers.categories();
    const counts = PRISM.answers.countBy("category");
    const all = category.options[0];
    category.replaceChildren(all);
    names.forEach((name, place) => {
      const option = document.createElement("option");
      option.value = String(place);
      option.textContent = `${name ?? "none"} (${count.format(counts[place])})`;
      category.append(option);
    });
    category.disabled = names.length < 2;
    category.value = "";
  }

  function offerCounts(control, name, words) {
    const counts = PRISM.answers.countBy(name);
    words.forEach((word, place) => {
      const option = control.options[place + 1];
      option.textContent = `${word} (${count.format(counts[place] ?? 0)})`;
    });
  }

  async function open() {
    offerRuns();
    const wanted = [code(benchmark), code(other)];
    if (opened === String(wanted)) return;
    const isOther = opened.split(",")[0] !== String(wanted[0]);
    await PRISM.answers.open(...wanted);
    opened = String(wanted);
    if (isOther) offerCategories();
    offerCounts(verdict, "verdict", meta.verdicts);
    if (!change) return;
    offerCounts(change, "change", meta.changes);
    change.disabled = wanted[1] === null;
    if (change.disabled) change.value = "";
  }

  // --- questions ----------------------------------------------------------------------------------
  async function show() {
    const isWanted = pager.begin();
    pager.say("Loading…");
    await open();
    if (!isWanted()) return;
    const filter = { category: code(category), verdict: code(verdict), change: code(change) };
    const searched = text.value.trim();
    words = PRISM.words.parse(searched);
    const lead = searched ? `Found “${searched}”. ` : "";
    await pager.open(PRISM.answers.list(filter, words), lead);
  }

  const refresh = () => show().catch(pager.fail);

  async function read([, name, row]) {
    const number = meta.benchmarks.findIndex((item) => item.name === decodeURIComponent(name));
    if (number < 0) return null;
    if (code(benchmark) !== number || !opened) {
      benchmark.value = String(number);
      await show();
    }
    return Number(row) < PRISM.answers.size() ? PRISM.answers.question(Number(row)) : null;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    refresh();
  });
  form.addEventListener("change", (event) => {
    if (event.target !== text) refresh();
  });
  text.addEventListener("search", refresh); // also when it is emptied
  PRISM.makeDialog(section, pager, {
    pattern: /^#question\/([^/]+)\/(\d{1,9})$/,
    read,
    title: (question) => question.text || question.id,
    fill: (question) => PRISM.answerCards.full(question, words),
    unknown: ([, name, row]) => `This report has no question ${row} of ${name}`,
    beside: (question, step) => {
      const row = pager.beside(question.row, step);
      return row === undefined ? null : PRISM.answerCards.hashOf(question.benchmark, row);
    },
  });
  pager.whenNear(refresh);
});
