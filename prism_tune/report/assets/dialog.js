"use strict";
// The dialog of one card, opened by the page's address, so that it can be linked to and gone back to.
//
// `pattern`: of the addresses that are its own. `read(match)`: what is shown, or null; `title` and
// `fill` make texts and elements of it. `unknown(match)`: said where it is null. `beside(item, step)`:
// the address that the left and right arrow keys lead to, or its promise; null for none.
PRISM.makeDialog = (section, pager, { pattern, read, title, fill, unknown, beside }) => {
  const by = (id) => document.getElementById(`${section.id}-${id}`);
  const [dialog, body, heading] = [by("record"), by("record-body"), by("record-title")];
  let shown = null;

  async function open(match) {
    const item = await read(match);
    if (location.hash !== match[0]) return;
    if (item === null) {
      pager.say(unknown(match));
      return;
    }
    shown = item;
    heading.textContent = title(item);
    body.replaceChildren(...fill(item));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    heading.focus();
  }

  function follow() {
    const match = location.hash.match(pattern);
    if (match) open(match).catch(pager.fail);
    else if (dialog.open) dialog.close();
  }

  async function step(direction) {
    const hash = await beside(shown, direction);
    if (!hash) return;
    history.replaceState(null, "", hash);
    follow();
  }

  for (const [id, direction] of [["before", -1], ["after", 1]]) {
    by(id).addEventListener("click", () => step(direction).catch(pager.fail));
  }
  dialog.addEventListener("keydown", (event) => {
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!direction || event.altKey || event.ctrlKey || event.metaKey) return;
    step(direction).catch(pager.fail);
  });
  by("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    if (pattern.test(location.hash)) history.replaceState(null, "", `#${section.id}`);
  });
  addEventListener("hashchange", follow);
  follow();
};
