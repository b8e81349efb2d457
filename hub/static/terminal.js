// A server's serial console: xterm.js on a WebSocket; binary is characters, text JSON objects.
"use strict";
(() => {
  const COLUMNS = 80;  // a serial line tells nobody how large the screen is
  const ROWS = 25;
  const SCROLLBACK = 5000;
  const RETRY_MS = [1000, 2000, 5000, 10000, 30000];
  const box = document.getElementById("terminal");
  if (!box) return;
  const said = document.getElementById("console-state");
  const last = document.getElementById("console-last");
  const note = document.getElementById("console-note");
  const button = (name) => document.getElementById("console-" + name);
  let socket = null;
  let status = {};
  let tries = 0;
  let lastMs = null;
  let timer = null;

  // -- xterm.js makes style elements and attributes, which the content policy forbids: on this
  //    page the same words go through style sheets of their own and through CSSOM.

  const create = document.createElement.bind(document);

  function sheetElement() {
    const stand = create("span");
    const sheet = new CSSStyleSheet();
    const words = { set: (text) => sheet.replaceSync(text), get: () => "" };
    stand.hidden = true;
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
    Object.defineProperties(stand, { textContent: words, innerText: words, sheet: { value: sheet } });
    return stand;
  }

  document.createElement = (tag, options) => {
    if (tag === "style") return sheetElement();
    const element = create(tag, options);
    if (tag === "span") {
      element.setAttribute = (name, value) => {
        if (name === "style") element.style.cssText = value;
        else Element.prototype.setAttribute.call(element, name, value);
      };
    }
    return element;
  };

  const terminal = new Terminal({
    cols: COLUMNS, rows: ROWS, scrollback: SCROLLBACK,
    disableStdin: true, screenReaderMode: true, fontSize: 14,
  });
  terminal.open(box);

  // -- what is said ----------------------------------------------------------------------

  function age() {
    if (lastMs === null) return "";
    const seconds = Math.floor((Date.now() - lastMs) / 1000);
    if (seconds < 2) return "last byte now";
    return "last byte " + (seconds < 60 ? seconds + " s" : Math.floor(seconds / 60) + " min") + " ago";
  }

  function words() {
    if (!socket) return timer ? "not connected: trying again" : "not connected";
    if (!status.state) return "connecting";
    const who = status.you_write ? "you write"
      : status.writer ? status.writer + " writes" : "nobody writes";
    const others = status.watchers > 1 ? ", " + status.watchers + " watch" : "";
    return status.state === "open" ? "open: " + who + others : status.state;
  }

  function show() {
    const open = socket !== null && status.state === "open";
    said.textContent = words();
    said.dataset.state = socket ? status.state || "connecting" : "ended";
    last.textContent = age();
    const missed = status.missed ? status.missed + " bytes were missed. " : "";
    note.textContent = missed + (status.text || "");
    note.hidden = !note.textContent;
    const mine = open && status.you_write;
    if (mine && terminal.options.disableStdin) terminal.focus();
    terminal.options.disableStdin = !mine;
    if (!button("write")) return;
    const other = open && status.writer && !status.you_write;
    button("write").hidden = !(open && !mine && !other);
    button("take").hidden = !other;
    button("read").hidden = !mine;
    button("break").hidden = !mine;
    button("steal").hidden = socket !== null || !/--steal/.test(status.text || "");
    button("open").hidden = socket !== null;
  }

  // -- the connection --------------------------------------------------------------------

  function connect(steal) {
    clearTimeout(timer);
    timer = null;
    const address = new URL(box.dataset.src, location.href);
    address.protocol = "wss:";
    if (steal) address.searchParams.set("steal", "true");
    status = {};
    let over = false;
    const mine = socket = new WebSocket(address);
    mine.binaryType = "arraybuffer";
    terminal.reset();  // what is kept comes again
    mine.addEventListener("message", (event) => {
      if (mine !== socket) return;
      if (typeof event.data === "string") {
        status = JSON.parse(event.data);
        over = status.state === "ended";
        if (status.state === "open") tries = 0;
      } else {
        lastMs = Date.now();
        terminal.write(new Uint8Array(event.data));
      }
      show();
    });
    mine.addEventListener("close", () => {
      if (mine !== socket) return;
      socket = null;
      status.you_write = false;
      if (!over) timer = setTimeout(connect, RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)]);
      show();
    });
    show();
  }

  function tell(what) {
    if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ do: what }));
    terminal.focus();
  }

  const encoder = new TextEncoder();
  terminal.onData((text) => {
    if (socket && status.you_write) socket.send(encoder.encode(text));
  });
  for (const what of ["write", "take", "read", "break"]) {
    if (button(what)) button(what).addEventListener("click", () => tell(what));
  }
  if (button("steal")) button("steal").addEventListener("click", () => connect(true));
  button("open").addEventListener("click", () => connect(false));
  window.addEventListener("pagehide", () => { if (socket) socket.close(); });
  setInterval(show, 1000);
  connect(false);
})();
