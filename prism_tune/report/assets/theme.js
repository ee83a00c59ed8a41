"use strict";
// Before anything is painted: the reader's own choice of theme, else the system's.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("prism-tune-theme");
  } catch {
    // Opened from disk, a browser may refuse to store anything.
  }
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = chosen || (dark ? "dark" : "light");
})();
