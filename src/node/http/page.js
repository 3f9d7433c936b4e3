"use strict";
const SILENT_MS = 7000;
const last = {};
let watch;
/* What is used by keyboard, or was scrolled sideways, stays so. */
const put = (place, html) => {
  const before = place.querySelector(".wide");
  const held = before !== null && before === document.activeElement;
  const left = before === null ? 0 : before.scrollLeft;
  place.innerHTML = html;
  const after = place.querySelector(".wide");
  if (after !== null) {
    after.scrollLeft = left;
    if (held) after.focus({ preventScroll: true });
  }
};
const stale = () => {
  const place = document.getElementById("live");
  /* Only this is read out: the time is new every two seconds. */
  place.setAttribute("role", "alert");
  place.textContent = "not live, the node does not answer: " + place.textContent.replace(/^live, /, "");
  delete last.live;
};
const live = new EventSource("/events");
live.addEventListener("page", (event) => {
  clearTimeout(watch);
  watch = setTimeout(stale, SILENT_MS);
  document.getElementById("live").removeAttribute("role");
  for (const [id, html] of Object.entries(JSON.parse(event.data))) {
    const place = document.getElementById(id);
    if (place && last[id] !== html) {
      last[id] = html;
      put(place, html);
    }
  }
});
