"use strict";
// Elements of cards. What a record, a question or a model says becomes a text node or an attribute,
// inside an element that keeps its writing direction to itself.
PRISM.elements = (() => {
  const count = new Intl.NumberFormat("en-US");

  function make(tag, className, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children);
    return element;
  }

  // `words` of a search are marked in it.
  function foreign(tag, className, text, words) {
    const element = make(tag, className, ...PRISM.words.highlight(text, words));
    element.dir = "auto";
    return element;
  }

  // A picture in its frame, or the words that stand where there is none.
  function picture(className, path, alt, missing) {
    const frame = make("div", className);
    const note = make("span", "thumb-note", ...[missing].flat());
    if (!path) {
      frame.append(note);
      return frame;
    }
    const image = make("img");
    image.loading = "lazy";
    image.decoding = "async";
    image.alt = alt;
    image.addEventListener("error", () => image.replaceWith(note));
    image.src = path;
    frame.append(image);
    return frame;
  }

  function link(hash, className, ...children) {
    const anchor = make("a", className, ...children);
    anchor.href = new URL(hash, location.href).href;
    return anchor;
  }

  // [term, element or text] pairs.
  function terms(className, pairs) {
    const list = make("dl", className);
    for (const [name, value] of pairs) list.append(make("dt", "", name), make("dd", "", value));
    return list;
  }

  // [role, text] pairs.
  function turns(pairs, words) {
    const list = make("dl", "turns");
    for (const [role, text] of pairs) list.append(make("dt", "", role), foreign("dd", "", text, words));
    return list;
  }

  // What is typed into a shell, as code.
  function command(before, text, after = "") {
    return [before, make("code", "", text), after];
  }

  return { count, make, foreign, picture, link, terms, turns, command };
})();
