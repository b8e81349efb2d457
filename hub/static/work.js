// What needs a script on the pages of jobs and assets: a log that goes on, an upload that shows.
"use strict";
(() => {
  const LINES_MAX = 2000;

  // -- the log of a job: server-sent events, which the browser resumes by the last line's number

  const log = document.getElementById("log");

  function clock(ms) {
    return new Date(ms).toISOString().slice(11, 19);
  }

  function add(line) {
    const bottom = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    const row = document.createElement("span");
    const time = document.createElement("time");
    row.className = "line";
    time.dataset.at = line.at_ms;
    time.textContent = clock(line.at_ms);
    row.append(time, " " + line.text + "\n");
    log.append(row);
    while (log.children.length > LINES_MAX) log.firstElementChild.remove();
    if (bottom) log.scrollTop = log.scrollHeight;
  }

  function follow() {
    const said = document.getElementById("log-state");
    const empty = document.getElementById("log-empty");
    const source = new EventSource(log.dataset.src + "?after=" + log.dataset.after);
    log.scrollTop = log.scrollHeight;
    source.addEventListener("open", () => { said.textContent = "live from the job's node"; });
    source.addEventListener("line", (event) => {
      said.textContent = "live from the job's node";
      if (empty) empty.hidden = true;
      add(JSON.parse(event.data));
    });
    source.addEventListener("trouble", (event) => {
      said.textContent = JSON.parse(event.data).text + "; asking again";
    });
    source.addEventListener("end", () => {
      said.textContent = "the job is over";
      source.close();
    });
    source.addEventListener("error", () => {
      const closed = source.readyState === EventSource.CLOSED;
      said.textContent = closed ? "not live: load the page again" : "reconnecting";
    });
    window.addEventListener("pagehide", () => source.close());
  }

  if (log && log.dataset.over === "no") follow();

  // -- an upload: the name is registered, then the bytes go up with their progress

  const form = document.getElementById("add-asset");
  if (!form) return;
  const field = document.getElementById("file");
  const state = document.getElementById("upload-state");
  document.getElementById("upload").hidden = false;

  function say(text, bad) {
    const line = document.createElement("p");
    line.className = bad ? "notice bad" : "dim";
    line.textContent = text;
    state.replaceChildren(line);
  }

  async function answer(response) {
    const body = await response.json();
    if (!response.ok) throw new Error(body.detail || "the hub answered " + response.status);
    return body.item;
  }

  function send(name, file, token) {
    const bar = document.createElement("progress");
    const words = document.createElement("span");
    bar.max = file.size || 1;
    bar.setAttribute("aria-label", "Upload of " + name);
    state.replaceChildren(bar, " ", words);
    return new Promise((done, failed) => {
      const request = new XMLHttpRequest();
      request.open("PUT", "/api/v1/assets/" + encodeURIComponent(name) + "/content");
      request.setRequestHeader("X-CSRF-Token", token);
      request.setRequestHeader("Content-Type", "application/octet-stream");
      request.upload.addEventListener("progress", (event) => {
        bar.value = event.loaded;
        const share = Math.floor(100 * event.loaded / bar.max);
        words.textContent = share < 100 ? share + " % sent" : "sent; the hub checks it";
      });
      request.addEventListener("load", () => {
        if (request.status < 300) return done();
        let detail = "the hub answered " + request.status;
        try { detail = JSON.parse(request.responseText).detail || detail; } catch { /* not JSON */ }
        failed(new Error(detail));
      });
      request.addEventListener("error", () => failed(new Error("the connection broke off")));
      request.send(file);
    });
  }

  form.addEventListener("submit", async (event) => {
    const file = field.files[0];
    if (!file) return;
    event.preventDefault();
    const values = new FormData(form);
    const asked = { name: values.get("name"), want: values.getAll("want") };
    for (const key of ["sha256", "kind"]) if (values.get(key)) asked[key] = values.get(key);
    const button = form.querySelector("button[type=submit]");
    button.disabled = true;
    try {
      const session = await answer(await fetch("/api/v1/session"));
      await answer(await fetch("/api/v1/assets", {
        method: "POST", body: JSON.stringify(asked),
        headers: { "Content-Type": "application/json", "X-CSRF-Token": session.csrf },
      }));
      await send(asked.name, file, session.csrf);
      location.assign("/assets/" + encodeURIComponent(asked.name));
    } catch (error) {
      say(error.message, true);
      button.disabled = false;
    }
  });
})();
