"use strict";
// Search words: several, all of which must stand in a text; "words in quotes" are one.
PRISM.words = (() => {
  const AROUND = 60; // characters before the first hit of an excerpt

  function parse(text) {
    const found = text.toLowerCase().matchAll(/"([^"]+)"|(\S+)/g);
    const words = [...found].map(([, quoted, bare]) => (quoted ?? bare).trim());
    return [...new Set(words.filter(Boolean))];
  }

  function holds(texts, words) {
    const text = texts.map((part) => part ?? "").join("\n").toLowerCase();
    return words.every((word) => text.includes(word));
  }

  // Lower-casing may change a text's length ("İ"): then nothing in it can be pointed at.
  function hits(text, words) {
    const lower = text.toLowerCase();
    if (words.length === 0 || lower.length !== text.length) return [];
    const found = [];
    for (const word of words) {
      for (let at = lower.indexOf(word); at >= 0; at = lower.indexOf(word, at + word.length)) {
        found.push([at, at + word.length]);
      }
    }
    found.sort((a, b) => a[0] - b[0] || b[1] - a[1]);
    return found;
  }

  // Text nodes, the words inside of <mark>.
  function highlight(text, words = []) {
    const nodes = [];
    let end = 0;
    for (const [start, stop] of hits(text, words)) {
      if (start < end) continue;
      if (start > end) nodes.push(text.slice(end, start));
      const mark = document.createElement("mark");
      mark.textContent = text.slice(start, stop);
      nodes.push(mark);
      end = stop;
    }
    return [...nodes, text.slice(end)];
  }

  // From shortly before the first hit on.
  function excerpt(text, words) {
    const first = hits(text, words)[0]?.[0] ?? 0;
    return first <= AROUND ? text : `…${text.slice(first - AROUND / 2)}`;
  }

  return { parse, holds, highlight, excerpt };
})();
