"use strict";
const SILENT_MS = 7000;
const last = {};
let watch;
const stale = () => {
  const place = document.getElementById("live");
  place.textContent = "not live, the node does not answer: " + place.textContent.replace(/^live, /, "");
  delete last.live;
};
const live = new EventSource("/events");
live.addEventListener("page", (event) => {
  clearTimeout(watch);
  watch = setTimeout(stale, SILENT_MS);
  for (const [id, html] of Object.entries(JSON.parse(event.data))) {
    const place = document.getElementById(id);
    if (place && last[id] !== html) {
      last[id] = html;
      place.innerHTML = html;
    }
  }
});
