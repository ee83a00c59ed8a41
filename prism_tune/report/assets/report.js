"use strict";
// Theme, navigation and plots. Data arrive as scripts that fill PRISM.data (see section.py); texts
// of records reach the page as text nodes only.
const PRISM = { data: {} };

(() => {
  const root = document.documentElement;
  const probe = document.createElement("span");
  const SETTLED_MS = 3000;
  const drawn = new Map(); // plot element -> key of the variant it shows

  // --- theme ---------------------------------------------------------------------------------
  function colour(name) {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  }

  function setTheme(theme) {
    root.dataset.theme = theme;
    const button = document.getElementById("theme");
    button.setAttribute("aria-pressed", String(theme === "dark"));
    for (const element of drawn.keys()) draw(element);
    document.dispatchEvent(new CustomEvent("prism:theme", { detail: theme }));
  }

  function watchTheme() {
    const button = document.getElementById("theme");
    button.setAttribute("aria-pressed", String(root.dataset.theme === "dark"));
    button.addEventListener("click", () => {
      const theme = root.dataset.theme === "dark" ? "light" : "dark";
      try {
        localStorage.setItem("prism-tune-theme", theme);
      } catch {
        // The choice then lasts as long as the page.
      }
      setTheme(theme);
    });
    let before = null;
    addEventListener("beforeprint", () => {
      before = root.dataset.theme;
      for (const element of plots()) draw(element);
      setTheme("light");
    });
    addEventListener("afterprint", () => before && setTheme(before));
  }

  // --- plots ---------------------------------------------------------------------------------
  const plots = () => document.querySelectorAll("[data-plot]");

  function figureOf(element) {
    const [section, name] = element.dataset.plot.split(".");
    return PRISM.data[section].figures[name];
  }

  // A figure names its colours by their place in the palette: "$kept", "$c0".
  function paint(value) {
    if (typeof value === "string") return value.startsWith("$") ? colour(value.slice(1)) : value;
    if (Array.isArray(value)) return value.map(paint);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, paint(part)]));
  }

  function axis(own) {
    const title = own.title && { ...own.title, font: { size: 13 }, standoff: 10 };
    return {
      gridcolor: colour("grid"),
      zerolinecolor: colour("grid"),
      linecolor: colour("line"),
      automargin: true,
      fixedrange: true,
      ...own,
      title,
    };
  }

  function layoutOf(given, width) {
    const own = paint(given);
    const layout = {
      autosize: true,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 48, r: 12, t: 8, b: 44 },
      hovermode: "closest",
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", traceorder: "normal" },
      ...own,
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("ink") },
      hoverlabel: {
        bgcolor: colour("raised"),
        bordercolor: colour("line"),
        font: { color: colour("ink") },
      },
    };
    for (const key of Object.keys(own)) {
      if (/^[xy]axis\d*$/.test(key)) layout[key] = axis(own[key]);
    }
    if (!layout.xaxis) layout.xaxis = axis({});
    if (!layout.yaxis) layout.yaxis = axis({});
    if (width < 520) layout.font.size = 11;
    return layout;
  }

  // Larger than all the rest of the page together: read when the first plot is to be drawn, or once
  // the page has settled, since printing draws them all and waits for nothing.
  let reading = null;
  function readPlotly() {
    reading ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = "assets/plotly.min.js";
      script.onload = () => resolve(Plotly);
      script.onerror = () => reject(new Error("assets/plotly.min.js cannot be read"));
      document.head.append(script);
    });
    return reading;
  }

  async function draw(element, key = drawn.get(element)) {
    const figure = figureOf(element);
    const shown = key ?? figure.initial;
    const variant = figure.variants[shown];
    drawn.set(element, shown);
    const plotly = await readPlotly();
    plotly.react(element, paint(variant.data), layoutOf(variant.layout, element.clientWidth), {
      displayModeBar: false,
      responsive: true,
      doubleClick: false,
    });
    element.dataset.drawn = shown;
    element.dispatchEvent(new CustomEvent("prism:drawn"));
  }

  function watchPlots() {
    const seen = new IntersectionObserver(
      (entries) => {
        for (const { isIntersecting, target } of entries) {
          if (!isIntersecting) continue;
          seen.unobserve(target);
          if (!drawn.has(target)) draw(target);
        }
      },
      { rootMargin: "400px" },
    );
    for (const element of plots()) seen.observe(element);
    if (plots().length) setTimeout(readPlotly, SETTLED_MS);
    for (const control of document.querySelectorAll("[data-plot-control]")) {
      const plot = document.querySelector(`[data-plot="${control.dataset.plotControl}"]`);
      control.addEventListener("change", () => draw(plot, control.value));
    }
  }

  // --- navigation ----------------------------------------------------------------------------
  function watchSections() {
    const nav = document.querySelector(".bar nav");
    const menu = document.getElementById("menu");
    const open = (isOpen) => menu.setAttribute("aria-expanded", String(isOpen));
    menu.addEventListener("click", () => open(menu.getAttribute("aria-expanded") === "false"));
    nav.addEventListener("click", () => open(false));
    document.addEventListener("keydown", (event) => event.key === "Escape" && open(false));
    document.addEventListener("click", (event) => event.target.closest(".bar") || open(false));
    const links = new Map(
      [...nav.querySelectorAll("a")].map((link) => [link.hash.slice(1), link]),
    );
    const inside = new Set();
    const seen = new IntersectionObserver(
      (entries) => {
        for (const { isIntersecting, target } of entries) {
          if (isIntersecting) inside.add(target.id);
          else inside.delete(target.id);
        }
        const at = [...links.keys()].findLast((id) => inside.has(id));
        if (at === undefined) return;
        for (const [id, link] of links) {
          if (id === at) link.setAttribute("aria-current", "true");
          else link.removeAttribute("aria-current");
        }
        menu.firstElementChild.textContent = links.get(at).textContent;
      },
      { rootMargin: "-20% 0px -70% 0px" },
    );
    for (const section of document.querySelectorAll("main > section")) seen.observe(section);
  }

  PRISM.colour = colour;
  PRISM.start = () => {
    probe.hidden = true;
    document.body.append(probe);
    watchTheme();
    watchPlots();
    watchSections();
  };
  document.addEventListener("DOMContentLoaded", PRISM.start);
})();
