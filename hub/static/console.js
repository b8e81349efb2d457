// Keeps the page young: ages tick, and a section named by an event is fetched again.
"use strict";
(() => {
  const QUIET_MS = 250;
  const RENEW_MS = 15000;
  let skew = Date.now() - Number(document.documentElement.dataset.nowMs);

  function age(ms) {
    const seconds = Math.max(0, Math.floor((Date.now() - skew - ms) / 1000));
    for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
      if (seconds >= length) return Math.floor(seconds / length) + " " + unit + " ago";
    }
    return seconds >= 2 ? seconds + " s ago" : "now";
  }

  function tick() {
    for (const time of document.querySelectorAll("time[data-ms]")) {
      const text = age(Number(time.dataset.ms));
      if (time.textContent !== text) time.textContent = text;
    }
  }

  const stale = new Set();
  let timer = null;

  function flush() {
    timer = null;
    for (const section of stale) htmx.trigger(section, "changed");
    stale.clear();
  }

  function renew(kind) {
    for (const section of document.querySelectorAll("[data-kinds]")) {
      if (kind === null || section.dataset.kinds.split(" ").includes(kind)) stale.add(section);
    }
    if (timer === null) timer = setTimeout(flush, QUIET_MS);
  }

  const feed = document.getElementById("feed");
  function say(text, tone) {
    feed.textContent = text;
    feed.className = "feed " + tone;
  }

  const source = new EventSource("/api/v1/events?since=" + encodeURIComponent(feed.dataset.since));
  for (const kind of ["site", "node", "server", "job", "pending", "asset"]) {
    source.addEventListener(kind, () => renew(kind));
  }
  source.addEventListener("reset", () => renew(null));
  source.addEventListener("open", () => say("Live", "good"));
  source.addEventListener("error", () => {
    say(source.readyState === EventSource.CLOSED ? "Not live: reload the page" : "Reconnecting", "warn");
  });
  document.body.addEventListener("htmx:afterSwap", tick);
  setInterval(tick, 1000);
  setInterval(() => renew(null), RENEW_MS);
  tick();
})();
