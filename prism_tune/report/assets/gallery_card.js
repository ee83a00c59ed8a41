"use strict";
// A record as elements: short in the grid, at length in the dialog.
PRISM.cards = (() => {
  const REASONS = {
    selected: "above the cut",
    below_cut: "below the cut",
    text_only: "text only: always kept",
  };
  const { count, make, foreign, terms } = PRISM.elements;

  const format = (value) => Number(value.toPrecision(4)).toString().replace("-", "−");
  const cosine = (value) => value.toFixed(2).replace("-", "−");

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
    if (record.images.length === 0) return "No image: text only";
    return PRISM.data.served
      ? "The image cannot be shown"
      : "No thumbnail here; `prism-tune report RUN --serve` makes it";
  }

  function picture(record, className) {
    const alt = `Image ${record.images[0]}`;
    return PRISM.elements.picture(className, record.thumb, alt, missing(record));
  }

  const link = (record, ...parts) => PRISM.elements.link(`#${record.uid}`, ...parts);

  const ROLES = { system: "System line", human: "Question", gpt: "Answer" };

  const turnsOf = (turns) =>
    PRISM.elements.turns(turns.map(([role, text]) => [ROLES[role], text]));

  // Two lines are all that a card has; one of them is not for the placeholder.
  function opening(record) {
    const bare = ([role, text]) => [role, text.replace(/^<image>\s*/, "")];
    return turnsOf(record.turns.filter(([role]) => role !== "system").slice(0, 2).map(bare));
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

  function short(record) {
    const title = make("h3", "", link(record, "", foreign("bdi", "", record.id)));
    const source = foreign("span", "source", record.source);
    return [
      picture(record, "thumb"),
      make("div", "card-head", verdict(record), source),
      title,
      make("p", "standing", standing(record)),
      opening(record),
      stripOf(record),
    ];
  }

  // --- in the dialog ----------------------------------------------------------------------------
  function facts(record) {
    return terms("facts", [
      ["Verdict", make("span", "", verdict(record), ` ${standing(record)}`)],
      ["Source", foreign("bdi", "", record.source)],
      ["Id", foreign("bdi", "", record.id)],
      ["uid", make("code", "", record.uid)],
      ["Images", foreign("bdi", "", record.images.join(", ") || "none")],
    ]);
  }

  function neighbourList(title, items) {
    const list = make("ul", "neighbours");
    for (const { row, value, sharing } of items) {
      const other = PRISM.records.neighbour(row);
      const text = other.turns.find(([role]) => role === "human")?.[1] ?? "";
      const more = sharing > 1 ? `; ${count.format(sharing - 1)} more of this image` : "";
      const anchor = link(
        other,
        "neighbour",
        picture(other, "thumb"),
        make("span", "neighbour-facts", make("strong", "", value), " ", verdict(other), more),
        foreign("span", "neighbour-text", text),
      );
      list.append(make("li", "", anchor));
    }
    return make("section", "", make("h4", "", title), list);
  }

  function neighboursOf(record) {
    const none = PRISM.data.gallery.noNeighbours;
    const found = record.neighbours;
    if (none) return [make("p", "subtle", none)];
    if (!found) {
      const why = record.isPrepared
        ? "This record has no feature, so nothing can be said of its neighbours."
        : "Neighbours are worked out for the records that the views show first.";
      return [make("p", "subtle", why)];
    }
    const items = (list) =>
      list.map(({ row, cosine: value, num_sharing: sharing }) => ({ row, value: cosine(value), sharing }));
    const same = found.same_image.map((row) => ({ row, value: "same image", sharing: 1 }));
    const place = PRISM.data.gallery.perSource ? "in its source" : "in the pool";
    const lists = [
      [`Closest kept records ${place}, by cosine`, items(found.nearest_kept)],
      [`Closest records ${place}, by cosine`, items(found.nearest)],
      [`Same image: ${count.format(found.num_same_image)} other records of the pool`, same],
    ];
    const shown = lists.filter(([, list]) => list.length > 0);
    if (shown.length === 0) return [make("p", "subtle", "Nothing stands near this record.")];
    return shown.map(([title, list]) => neighbourList(title, list));
  }

  function full(record) {
    const left = record.numTurns - record.turns.length;
    const rest = left > 0 ? [make("p", "subtle", `${count.format(left)} more turns`)] : [];
    return [
      make("div", "record-head", picture(record, "thumb"), facts(record)),
      turnsOf(record.turns),
      ...rest,
      ...neighboursOf(record),
    ];
  }

  return { short, full };
})();
