"use strict";
// Pages of cards: the list, the line that says what it shows, the keys that turn its pages, and what
// is folded above it.
//
// `noun`: what the rows are, "Records". `read(row)`: what `fill` makes a card's elements of, or its
// promise. Work that was begun and is no longer wanted stops by itself: see `begin`.
PRISM.makePager = (section, { noun, perPage, read, fill }) => {
  const { count, make } = PRISM.elements;
  const by = (id) => document.getElementById(`${section.id}-${id}`);
  const list = by("list");
  let rows = null; // null before the first
  let at = 0; // the page
  let job = 0; // what is being done

  const say = (text) => (by("status").textContent = text);
  const fail = (error) => say(`${noun} cannot be shown: ${error.message}`);

  // A function that says whether this is still what is wanted.
  function begin() {
    job += 1;
    const mine = job;
    return () => mine === job;
  }

  function describe(first, shown) {
    if (shown === 0) return `No ${noun.toLowerCase()}`;
    const range = `${count.format(first + 1)} to ${count.format(first + shown)}`;
    return `${noun} ${range} of ${count.format(rows.length)}`;
  }

  async function show(page, lead = "") {
    const isWanted = begin();
    at = page;
    const first = page * perPage;
    const found = await Promise.all([...rows.slice(first, first + perPage)].map(read));
    if (!isWanted()) return;
    const hadFocus = list.contains(document.activeElement);
    list.replaceChildren(
      ...found.map((item) => {
        const card = make("li", "card");
        card.append(...fill(item));
        return card;
      }),
    );
    if (hadFocus) list.focus({ preventScroll: true });
    const pages = Math.max(1, Math.ceil(rows.length / perPage));
    by("previous").disabled = page === 0;
    by("next").disabled = page >= pages - 1;
    by("page").textContent = `Page ${count.format(page + 1)} of ${count.format(pages)}`;
    say(`${lead}${describe(first, found.length)}`);
  }

  function turn(step) {
    const page = at + step;
    if (rows === null || page < 0 || page * perPage >= rows.length) return;
    show(page).catch(fail);
  }

  function open(found, lead = "") {
    rows = found;
    return show(0, lead);
  }

  // The row before or behind one of the list; undefined at its ends.
  const beside = (row, step) => (rows?.includes(row) ? rows[rows.indexOf(row) + step] : undefined);

  // Start when the section comes near, unless something has been shown by then.
  function whenNear(start) {
    const near = new IntersectionObserver(
      (entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        near.disconnect();
        if (rows === null) start();
      },
      { rootMargin: "600px" },
    );
    near.observe(section);
  }

  section.addEventListener("click", (event) => {
    const fold = event.target.closest(".fold");
    if (!fold) return;
    const isOpen = document.getElementById(fold.getAttribute("aria-controls")).classList.toggle("open");
    fold.setAttribute("aria-expanded", String(isOpen));
  });
  by("previous").addEventListener("click", () => turn(-1));
  by("next").addEventListener("click", () => turn(1));
  section.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const isTyping = event.target.matches("input, select") || event.target.closest("dialog");
    if (!step || isTyping || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    turn(step);
  });

  return { begin, say, fail, open, beside, whenNear, rows: () => rows ?? [] };
};
