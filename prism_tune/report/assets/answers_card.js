"use strict";
// A question as elements: short in the grid, at length in the dialog.
PRISM.answerCards = (() => {
  const { make, foreign, link, terms, turns, command } = PRISM.elements;
  const BADGES = ["right", "partly", "wrong", "none", "none"]; // in the order of the verdicts
  const CHANGE_BADGES = ["wrong", "right", "none", "none"]; // in the order of the changes

  const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
  const hashOf = (benchmark, row) => `#question/${encodeURIComponent(benchmark)}/${row}`;

  function badge(answer) {
    const isPart = answer.score > 0 && answer.score < 1;
    const words = capital(PRISM.data.answers.verdicts[answer.verdict]);
    const text = isPart ? `${words}: ${answer.score.toFixed(2)}` : words;
    return make("span", `badge badge-${BADGES[answer.verdict]}`, text);
  }

  function changeOf(question) {
    if (!(question.change >= 0)) return [];
    const text = capital(PRISM.data.answers.changes[question.change]);
    return [make("span", `badge badge-${CHANGE_BADGES[question.change]}`, text)];
  }

  function missing() {
    if (PRISM.data.served) return "The image cannot be shown";
    return command("No picture here; ", "prism-tune report RUN --serve", " draws it");
  }

  function picture(question, place, className) {
    const { name, path } = question.pictures[place];
    const alt = `Image ${place + 1} of question ${question.id}${name ? `: ${name}` : ""}`;
    return PRISM.elements.picture(className, path, alt, missing());
  }

  function cover(question) {
    const number = question.pictures.length;
    if (number === 0) return make("div", "thumb", make("span", "thumb-note", "No image"));
    const frame = picture(question, 0, "thumb");
    if (number > 1) frame.append(make("span", "thumb-count", `1 of ${number}`));
    return frame;
  }

  const words = (text) => text ?? "none";

  // --- in the grid ------------------------------------------------------------------------------
  function short(question, found) {
    const { now, before } = question;
    const hash = hashOf(question.benchmark, question.row);
    const title = foreign("bdi", "", question.text || question.prompt || question.id, found);
    const told = [["Reference", words(question.reference)]];
    if (before) told.push([`Before: ${before.run}`, words(before.text)]);
    told.push([before ? `Now: ${now.run}` : "Answer", words(now.text)]);
    const head = make("div", "card-head", badge(now));
    if (question.category) head.append(foreign("span", "source", question.category));
    return [
      cover(question),
      head,
      make("h3", "", link(hash, "card-link", title)),
      ...(before ? [make("div", "card-head", ...changeOf(question))] : []),
      turns(told, found),
    ];
  }

  // --- in the dialog ----------------------------------------------------------------------------
  function answer(heading, told, found) {
    const title = make("h4", "", heading, foreign("bdi", "", told.run), " ", badge(told));
    return make("section", "told", title, foreign("p", "text", words(told.text), found));
  }

  function passage(heading, text, found) {
    return make("section", "", make("h4", "", heading), foreign("p", "text", text, found));
  }

  function facts(question) {
    const names = question.pictures.map(({ name }) => name || "in the annotation file");
    const pairs = [["Benchmark", foreign("bdi", "", question.benchmark)]];
    pairs.push(["Id", foreign("bdi", "", question.id)]);
    if (question.category) pairs.push(["Category", foreign("bdi", "", question.category)]);
    pairs.push(["Images", foreign("bdi", "", names.join(", ") || "none")]);
    if (question.change >= 0) pairs.push(["Change", make("span", "", ...changeOf(question))]);
    return terms("facts", pairs);
  }

  function full(question, found) {
    const { now, before } = question;
    const shown = question.pictures.map((_, place) => picture(question, place, "thumb picture"));
    const told = before
      ? [answer("Before: ", before, found), answer("Now: ", now, found)]
      : [answer("Answer of ", now, found)];
    return [
      make("div", "pictures", ...shown),
      passage("Question, as it was asked", question.prompt || "not in the annotations", found),
      passage("Reference", words(question.reference), found),
      make("div", "told-both", ...told),
      facts(question),
    ];
  }

  return { short, full, hashOf };
})();
