"use strict";
// What somebody marked: keep, drop, look again. By row, remembered by the browser for this pool, and
// written as the file that `selection.must_keep` and `selection.must_drop` read.
PRISM.marks = (() => {
  const KINDS = ["keep", "drop", "look_again"];
  const LABELS = { keep: "Keep", drop: "Drop", look_again: "Look again" };
  const key = () => `prism-tune-marks-${PRISM.data.gallery.pool}`;
  let kinds = new Map(); // row -> kind
  let before = null; // what the last change can be undone to
  let isRemembered = true;

  function listed() {
    const rows = Object.fromEntries(KINDS.map((kind) => [kind, []]));
    for (const [row, kind] of kinds) rows[kind].push(row);
    for (const of_kind of Object.values(rows)) of_kind.sort((a, b) => a - b);
    return rows;
  }

  function remember() {
    try {
      localStorage.setItem(key(), JSON.stringify(listed()));
      isRemembered = true;
    } catch {
      isRemembered = false; // storage is refused or full: the download is all there is
    }
  }

  function recall() {
    try {
      const rows = JSON.parse(localStorage.getItem(key())) ?? {};
      for (const kind of KINDS) for (const row of rows[kind] ?? []) kinds.set(row, kind);
    } catch {
      isRemembered = false;
    }
  }

  function change(make) {
    before = kinds;
    kinds = make(new Map(kinds));
    remember();
    document.dispatchEvent(new CustomEvent("prism:marks"));
  }

  // `kind` null: no mark.
  function set(rows, kind) {
    change((next) => {
      for (const row of rows) kind === null ? next.delete(row) : next.set(row, kind);
      return next;
    });
  }

  const toggle = (row, kind) => set([row], kinds.get(row) === kind ? null : kind);

  function undo() {
    const undone = before;
    if (undone) change(() => undone);
  }

  const clear = () => change(() => new Map());

  function add(uids, rowOf) {
    let unknown = 0;
    change((next) => {
      for (const kind of KINDS) {
        for (const uid of uids[kind] ?? []) {
          const row = rowOf(uid);
          if (row === undefined) unknown += 1;
          else next.set(row, kind);
        }
      }
      return next;
    });
    return unknown;
  }

  function counts() {
    const number = { keep: 0, drop: 0, look_again: 0 };
    for (const kind of kinds.values()) number[kind] += 1;
    return number;
  }

  // The buttons of one record; gallery.js keeps their state.
  function buttons(row) {
    const { make } = PRISM.elements;
    const group = make("div", "marks");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "Mark this record");
    for (const kind of KINDS) {
      const button = make("button", `mark mark-${kind}`, LABELS[kind]);
      button.type = "button";
      button.dataset.row = row;
      button.dataset.kind = kind;
      button.setAttribute("aria-pressed", String(kinds.get(row) === kind));
      group.append(button);
    }
    return group;
  }

  return {
    KINDS,
    LABELS,
    ...{ recall, set, toggle, undo, clear, add, counts, listed, buttons },
    of: (row) => kinds.get(row) ?? null,
    size: () => kinds.size,
    canUndo: () => before !== null,
    isRemembered: () => isRemembered,
  };
})();
