// Keeps the page young (ages tick; parts named by an event are fetched again) and takes keys.
"use strict";
(() => {
  const QUIET_MS = 200;
  const RENEW_MS = 15000;
  const CHORD_MS = 1200;
  const skew = Date.now() - Number(document.documentElement.dataset.nowMs);

  // -- ages ------------------------------------------------------------------------------

  function age(ms) {
    const seconds = Math.max(0, Math.floor((Date.now() - skew - ms) / 1000));
    for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
      if (seconds >= length) return Math.floor(seconds / length) + " " + unit + " ago";
    }
    return seconds >= 2 ? seconds + " s ago" : "now";
  }

  function left(ms) {
    let seconds = Math.max(0, Math.floor((ms - Date.now() + skew) / 1000));
    const parts = [];
    for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
      if (seconds < length && (unit !== "s" || parts.length)) continue;
      parts.push(Math.floor(seconds / length) + " " + unit);
      seconds %= length;
    }
    return parts.slice(0, 2).join(" ");
  }

  function tick() {
    for (const time of document.querySelectorAll("time[data-until]")) {
      time.textContent = left(Number(time.dataset.until));
    }
    for (const time of document.querySelectorAll("time[data-ms]")) {
      const text = age(Number(time.dataset.ms));
      if (time.textContent !== text) time.textContent = text;
    }
  }

  // -- parts -----------------------------------------------------------------------------

  const stale = new Set();
  let timer = null;
  let asking = false;

  function busy(part) {
    const focus = document.activeElement;
    return part.contains(focus) && focus.matches("select, textarea, input:not([type=checkbox])");
  }

  async function flush() {
    timer = null;
    if (asking) return;
    const names = [...stale].filter((name) => !busy(document.getElementById(name)));
    if (!names.length) return;
    for (const name of names) stale.delete(name);
    const here = new URL(location.href);
    here.searchParams.set("part", names.join(","));
    asking = true;
    try {
      await htmx.ajax("GET", here.pathname + here.search, { swap: "none", source: "#main" });
    } finally {
      asking = false;
      if (stale.size) later();
    }
  }

  function later() {
    if (timer === null) timer = setTimeout(flush, QUIET_MS);
  }

  function renew(kind) {
    if (document.hidden) return; // all is read again when the page comes into sight
    for (const part of document.querySelectorAll("[data-kinds]")) {
      if (kind === null || part.dataset.kinds.split(" ").includes(kind)) stale.add(part.id);
    }
    if (stale.size) later();
  }

  // What a person has opened, ticked or put the focus on stays so when its part is renewed.
  const kept = new Map();

  function ticks(part) {
    return [...part.querySelectorAll("input[type=checkbox][name]")];
  }

  document.body.addEventListener("htmx:oobBeforeSwap", (event) => {
    const part = event.detail.target;
    const focus = document.activeElement;
    kept.set(part.id, {
      open: [...part.querySelectorAll("details[id]")].map((node) => [node.id, node.open]),
      ticked: ticks(part).filter((box) => box.checked).map((box) => box.name + "=" + box.value),
      focus: part.contains(focus) ? focus.id || focus.getAttribute("href") : null,
    });
  });

  document.body.addEventListener("htmx:oobAfterSwap", (event) => {
    const part = event.detail.target;
    const was = kept.get(part.id);
    if (!was) return;
    kept.delete(part.id);
    for (const [id, open] of was.open) {
      const node = document.getElementById(id);
      if (node) node.open = open;
    }
    for (const box of ticks(part)) box.checked = was.ticked.includes(box.name + "=" + box.value);
    if (was.focus) {
      const again = [...part.querySelectorAll("[id], a[href]")].find(
        (node) => node.id === was.focus || node.getAttribute("href") === was.focus);
      if (again) again.focus({ preventScroll: true });
    }
    dress(part);
    tick();
  });

  // -- the feed of events ----------------------------------------------------------------

  const feed = document.getElementById("feed");

  function say(text, tone) {
    feed.textContent = text;
    feed.className = "feed " + tone;
  }

  function listen() {
    const since = encodeURIComponent(feed.dataset.since);
    const source = new EventSource("/api/v1/events?since=" + since);
    const kinds = new Set("site node server job pending asset token".split(" "));
    for (const part of document.querySelectorAll("[data-kinds]")) {
      for (const kind of part.dataset.kinds.split(" ")) if (kind) kinds.add(kind);
    }
    for (const kind of kinds) source.addEventListener(kind, () => renew(kind));
    source.addEventListener("reset", () => renew(null));
    source.addEventListener("open", () => say("Live", "good"));
    source.addEventListener("error", () => {
      const closed = source.readyState === EventSource.CLOSED;
      say(closed ? "Not live: reload the page" : "Reconnecting", "warn");
    });
    window.addEventListener("pagehide", () => source.close());
    window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
    document.addEventListener("visibilitychange", () => renew(null));
  }

  // -- small comforts --------------------------------------------------------------------

  function copyButton(block) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.querySelector("code").textContent);
      button.textContent = "Copied";
    });
    block.append(button);
  }

  function countTicks(form) {
    const boxes = ticks(form);
    const ticked = boxes.filter((box) => box.checked).length;
    for (const node of form.querySelectorAll("[data-ticked]")) node.textContent = ticked;
    for (const node of form.querySelectorAll("[data-ticked-line]")) node.hidden = !ticked;
    for (const node of form.querySelectorAll("[data-needs-ticks]")) node.disabled = !ticked;
    const all = form.querySelector("[data-tick-all]");
    if (all) all.checked = boxes.length > 0 && ticked === boxes.length;
  }

  function dress(root) {
    for (const block of root.querySelectorAll("pre.command")) {
      if (navigator.clipboard && !block.querySelector("button")) copyButton(block);
    }
    for (const all of root.querySelectorAll("[data-tick-all]")) {
      all.hidden = false;
      countTicks(all.form);
    }
  }

  document.addEventListener("change", (event) => {
    const box = event.target;
    if (!box.matches("input[type=checkbox]") || !box.form) return;
    if (box.matches("[data-tick-all]")) {
      for (const other of ticks(box.form)) other.checked = box.checked;
    }
    countTicks(box.form);
  });

  // An open menu closes when something else is clicked, and with Escape.
  function closeMenus(except) {
    for (const menu of document.querySelectorAll("details.menu[open], details.confirm[open]")) {
      if (!menu.contains(except)) menu.open = false;
    }
  }
  document.addEventListener("click", (event) => closeMenus(event.target));

  const strip = document.getElementById("strip");
  strip.open = localStorage.getItem("strip") !== "folded";
  strip.addEventListener("toggle", () => {
    localStorage.setItem("strip", strip.open ? "open" : "folded");
  });

  // -- keys ------------------------------------------------------------------------------

  let chord = 0;
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      closeMenus(null);
      if (event.target.matches("input")) event.target.blur();
      return;
    }
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.closest("input, select, textarea, dialog[open]")) return;
    if (Date.now() - chord < CHORD_MS) {
      chord = 0;
      const link = document.querySelector('.places a[data-key="' + CSS.escape(event.key) + '"]');
      if (link) link.click();
      return;
    }
    const done = {
      g: () => { chord = Date.now(); },
      "/": () => document.querySelector(".search input").select(),
      f: () => { const bar = document.getElementById("filter"); if (bar) bar.select(); },
      b: () => { strip.open = !strip.open; },
      "?": () => document.getElementById("keys").showModal(),
    }[event.key];
    if (done) {
      event.preventDefault();
      done();
    }
  });

  // The answer to a form that is watched from now on at an address of its own.
  const here = document.querySelector("[data-here]");
  if (here) history.replaceState(null, "", here.dataset.here);

  dress(document);
  listen();
  setInterval(tick, 1000);
  setInterval(() => renew(null), RENEW_MS);
  tick();
})();
