"use strict";
// A record as the elements of a card in the grid.
PRISM.cards = (() => {
  const REASONS = {
    selected: "above the cut",
    below_cut: "below the cut",
    text_only: "text only: always kept",
  };
  const { count, make, foreign, command } = PRISM.elements;

  const format = (value) => Number(value.toPrecision(4)).toString().replace("-", "−");
  const cosine = (value) => value.toFixed(2).replace(/^-(?!0\.00$)/, "−").replace("-", "");

  function verdict(record) {
    return make("span", record.kept ? "badge badge-kept" : "badge badge-dropped", record.kept ? "Kept" : "Dropped");
  }

  function standing(record) {
    if (record.score === null) return REASONS[record.reason] ?? `left out: ${record.reason}`;
    const where = PRISM.data.gallery.perSource ? "its source" : "the pool";
    return (
      `score ${format(record.score)}, rank ${count.format(record.rank)} of ` +
      `${count.format(record.groupSize)} in ${where}; the first ${count.format(record.groupKept)} are kept`
    );
  }

  function missing(record) {
    if (record.pictures.length === 0) return "No image: text only";
    if (PRISM.data.served) return "The image cannot be shown";
    return command("No thumbnail here; ", "prism-tune report RUN --serve", " makes it");
  }

  function picture(record, className) {
    const [first] = record.pictures;
    const alt = first ? `Image ${first.name}` : "";
    return PRISM.elements.picture(className, first?.small, alt, missing(record));
  }

  function cover(record) {
    const frame = picture(record, "thumb");
    const number = record.pictures.length;
    if (number > 1) frame.append(make("span", "thumb-count", `1 of ${number}`));
    if (record.group) frame.append(groupButton(record));
    return frame;
  }

  const link = (record, ...parts) => PRISM.elements.link(`#${record.uid}`, ...parts);

  const ROLES = { system: "System line", human: "Question", gpt: "Answer" };

  const turnsOf = (turns, words) =>
    PRISM.elements.turns(turns.map(([role, text]) => [ROLES[role], text]), words);

  // Two lines are all that a card has; one of them is not for the placeholder. Of a search, the turns
  // that hold its words, from there on.
  function opening(record, words) {
    const bare = ([role, text]) => [role, text.replace(/^(<image>\s*)+/, "")];
    const spoken = record.turns.filter(([role]) => role !== "system").map(bare);
    const isHit = ([, text]) => words.some((word) => text.toLowerCase().includes(word));
    const found = words.length > 0 ? spoken.filter(isHit) : [];
    const shown = found.length > 0 ? found : spoken;
    return turnsOf(
      shown.slice(0, 2).map(([role, text]) => [role, PRISM.words.excerpt(text, words)]),
      words,
    );
  }

  // --- what stands out --------------------------------------------------------------------------
  const isAlone = (record) =>
    !record.kept && record.closest !== null && record.closest < PRISM.data.gallery.relative;

  function warning(record) {
    const said = Number.isFinite(record.closest)
      ? `Nothing kept is like it: the closest stands at cosine ${cosine(record.closest)}`
      : "Nothing of its source was kept";
    return make("p", "alone", said);
  }

  // gallery.js shows the group of the button that is pressed.
  function groupButton(record) {
    const { records, kept } = PRISM.records.groupOf(record.group);
    const button = make("button", "group-button", `${count.format(records)} alike, ${count.format(kept)} kept`);
    button.type = "button";
    button.dataset.group = record.group;
    return button;
  }

  // --- in the grid ------------------------------------------------------------------------------
  function stripOf(record) {
    const strip = make("div", "strip");
    const found = record.neighbours;
    if (!found) return strip;
    const closest = record.kept ? found.nearest : found.nearest_kept;
    const title = record.kept ? "Closest records" : "Closest kept records";
    if (closest.length === 0) return strip;
    const list = make("ul", "");
    for (const { row, cosine: value } of closest) {
      const other = PRISM.records.neighbour(row);
      const anchor = link(other, "", picture(other, "thumb"), make("span", "", cosine(value)));
      anchor.setAttribute("aria-label", `Cosine ${cosine(value)}: record ${other.id}`);
      list.append(make("li", "", anchor));
    }
    strip.append(make("p", "strip-title", title), list);
    return strip;
  }

  function short(record, words) {
    const title = make("h3", "", link(record, "", foreign("bdi", "", record.id, words)));
    const head = make("div", "card-head", verdict(record), foreign("span", "source", record.source));
    return [
      cover(record),
      head,
      title,
      isAlone(record) ? warning(record) : make("p", "standing", standing(record)),
      opening(record, words),
      stripOf(record),
      PRISM.marks.buttons(record.row),
    ];
  }

  return { short, verdict, standing, missing, picture, link, cosine, turnsOf, isAlone, warning, groupButton };
})();
