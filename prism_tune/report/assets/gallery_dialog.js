"use strict";
// A record at length: all of its pictures and turns, what is known of it, and its neighbours.
PRISM.recordDialog = (() => {
  const { count, make, foreign, terms, command } = PRISM.elements;
  const cards = PRISM.cards;

  // A thumbnail that becomes the picture itself when it is pressed, and small again.
  function picture(record, place) {
    const { name, small, full } = record.pictures[place];
    const alt = `Image ${name}`;
    const frame = (path, missing) => PRISM.elements.picture("thumb", path, alt, missing);
    const thumb = small || !full ? frame(small, cards.missing(record)) : frame(null, "Show the picture");
    if (!full) return thumb;
    const button = make("button", "picture-button", thumb);
    button.type = "button";
    button.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-label", `Full picture: ${name}`);
    const gone = command("Not beside this page: ", "prism-tune report RUN --serve", " shows it");
    button.addEventListener("click", () => {
      const isOpen = button.classList.toggle("picture-full");
      button.setAttribute("aria-expanded", String(isOpen));
      button.replaceChildren(isOpen ? frame(full, gone) : thumb);
    });
    return button;
  }

  function facts(record) {
    const names = record.images.join(", ") || "none";
    const pairs = [
      ["Verdict", make("span", "", cards.verdict(record), ` ${cards.standing(record)}`)],
      ["Source", foreign("bdi", "", record.source)],
      ["Id", foreign("bdi", "", record.id)],
      ["uid", make("code", "", record.uid)],
      ["Images", foreign("bdi", "", names)],
    ];
    if (record.group) pairs.push(["Near-duplicates", cards.groupButton(record)]);
    if (record.cluster) pairs.push(["Cluster", count.format(record.cluster)]);
    return terms("facts", pairs);
  }

  // --- neighbours -------------------------------------------------------------------------------
  function neighbourList(title, items) {
    const list = make("ul", "neighbours");
    for (const { row, value, sharing } of items) {
      const other = PRISM.records.neighbour(row);
      const text = other.turns.find(([role]) => role === "human")?.[1] ?? "";
      const more = sharing > 1 ? `; ${count.format(sharing - 1)} more of this image` : "";
      const anchor = cards.link(
        other,
        "neighbour",
        cards.picture(other, "thumb"),
        make("span", "neighbour-facts", make("strong", "", value), " ", cards.verdict(other), more),
        foreign("span", "neighbour-text", text),
      );
      list.append(make("li", "", anchor));
    }
    return make("section", "", make("h4", "", title), list);
  }

  function whyNone(record) {
    const none = PRISM.data.gallery.noNeighbours;
    if (none) return [none];
    if (record.isPrepared) return ["This record has no feature, so nothing can be said of its neighbours."];
    return command(
      "Its neighbours and the rest of its turns are not on this page: ",
      "prism-tune report RUN --serve",
      " works them out for every record.",
    );
  }

  function neighboursOf(record) {
    const found = record.neighbours;
    if (!found) return [make("p", "subtle", ...whyNone(record))];
    const items = (list) =>
      list.map(({ row, cosine, num_sharing: sharing }) => ({ row, value: cards.cosine(cosine), sharing }));
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

  function fill(record, words) {
    const left = record.numTurns - record.turns.length;
    const rest = left > 0 ? [make("p", "subtle", `${count.format(left)} more turns`)] : [];
    const pictures = record.pictures.map((_, place) => picture(record, place));
    if (pictures.length === 0) pictures.push(cards.picture(record, "thumb"));
    return [
      PRISM.marks.buttons(record.row),
      make("div", "record-head", make("div", "record-pictures", ...pictures), facts(record)),
      ...(cards.isAlone(record) ? [cards.warning(record)] : []),
      cards.turnsOf(record.turns, words),
      ...rest,
      ...neighboursOf(record),
    ];
  }

  return { fill };
})();
