"use strict";
// The questions of one benchmark at a time, as columns, with this run's answers and another's.
PRISM.answers = (() => {
  const ALL = null;
  let shown = null; // number of the benchmark
  let questions = null; // its columns
  let before = null; // columns of the other run; null without one
  const meta = () => PRISM.data.answers;

  // `number` of a benchmark, `other` of a run that has it, or null.
  async function open(number, other) {
    const [own, theirs] = await Promise.all([
      number === shown ? questions : PRISM.packed.json(`answers-${number}`),
      other === null ? null : PRISM.packed.json(`answers-${number}-${other}`),
    ]);
    shown = number;
    questions = own;
    before = theirs && { ...theirs, name: meta().others[other] };
  }

  const size = () => questions.ids.length;
  const benchmark = () => meta().benchmarks[shown];

  function prompt(row) {
    const parts = questions.wrappings[questions.wrapping[row]];
    return parts.length === 1 ? parts[0] : `${parts[0]}${questions.questions[row]}${parts[1]}`;
  }

  function answerOf(columns, row, run) {
    const { answers, scores, verdicts } = columns;
    return { run, text: answers[row], score: scores[row], verdict: verdicts[row] };
  }

  // The pictures of a question: beside the page, else drawn by the server.
  function pictures(row) {
    const names = questions.images[row];
    const known = questions.pictures[row];
    const drawn = (place) =>
      PRISM.data.served
        ? `answers/${encodeURIComponent(benchmark().name)}/${row}-${place}.webp`
        : null;
    return names.map((name, place) => ({ name, path: known?.[place] ?? drawn(place) }));
  }

  function question(row) {
    return {
      row,
      benchmark: benchmark().name,
      id: questions.ids[row],
      text: questions.questions[row],
      prompt: prompt(row),
      reference: questions.references[row],
      category: questions.categories[questions.category[row]],
      pictures: pictures(row),
      now: answerOf(questions, row, meta().run),
      before: before && answerOf(before, row, before.name),
      change: before && before.changes[row],
    };
  }

  // --- filters: numbers of what must hold, null for all -------------------------------------------
  function columnOf(name) {
    return { category: questions.category, verdict: questions.verdicts, change: before?.changes }[name];
  }

  function matches(row, filter) {
    for (const name of ["category", "verdict", "change"]) {
      if (filter[name] !== ALL && columnOf(name)[row] !== filter[name]) return false;
    }
    return true;
  }

  function list(filter, words) {
    const { ids, questions: asked, references, answers } = questions;
    const rows = [];
    for (let row = 0; row < size(); row += 1) {
      if (!matches(row, filter)) continue;
      const texts = [ids[row], asked[row], references[row], answers[row], before?.answers[row]];
      if (PRISM.words.holds(texts, words)) rows.push(row);
    }
    return rows;
  }

  // How many questions have each number in a column, the other filters left alone.
  function countBy(name) {
    const counts = [];
    for (const code of columnOf(name) ?? []) counts[code] = (counts[code] ?? 0) + 1;
    return counts;
  }

  return { open, question, list, countBy, size, categories: () => questions.categories };
})();
