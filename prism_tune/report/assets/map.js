"use strict";
// The map's hover card: thumbnail and facts of the record under the pointer, as text nodes; a click
// opens the record.
document.addEventListener("DOMContentLoaded", () => {
  const plot = document.querySelector('[data-plot="geometry.map"]');
  const points = PRISM.data.geometry.points;
  const card = document.createElement("div");
  const image = document.createElement("img");
  const text = document.createElement("p");
  card.className = "hover-card";
  card.hidden = true;
  image.alt = "";
  card.append(image, text);
  document.body.append(card);

  function show(event) {
    const point = points[event.points[0].customdata];
    image.hidden = !point.thumb;
    if (point.thumb) image.src = point.thumb;
    text.replaceChildren();
    const score = Number(point.score).toPrecision(4);
    const lines = [point.source, point.id, `score ${score}`, point.kept ? "kept" : "dropped"];
    for (const line of lines) {
      text.append(line, document.createElement("br"));
    }
    card.hidden = false;
    const { clientX, clientY } = event.event;
    const left = Math.min(clientX + 16, innerWidth - card.offsetWidth - 8);
    const top = Math.min(clientY + 16, innerHeight - card.offsetHeight - 8);
    card.style.left = `${Math.max(8, left)}px`;
    card.style.top = `${Math.max(8, top)}px`;
  }

  plot.addEventListener(
    "prism:drawn",
    () => {
      plot.on("plotly_hover", show);
      plot.on("plotly_click", (event) => {
        location.hash = points[event.points[0].customdata].uid; // the gallery opens it
      });
      plot.on("plotly_unhover", () => (card.hidden = true));
    },
    { once: true },
  );
  addEventListener("scroll", () => (card.hidden = true), { passive: true });
});
