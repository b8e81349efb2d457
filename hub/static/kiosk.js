// Goes from view to view of the wallboard; says so when the hub is not reached any more.
"use strict";
(() => {
  let read = Date.now();

  async function follow() {
    const next = document.body.dataset.next;
    try {
      const answer = await fetch(next, { headers: { Accept: "text/html" } });
      if (answer.redirected) return location.replace("/sign-in");
      if (!answer.ok) throw new Error("the hub answers " + answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      document.title = page.title;
      document.body.dataset.next = page.body.dataset.next;
      document.body.replaceChildren(...page.body.childNodes);
      read = Date.now();
    } catch {
      const lost = document.querySelector(".lost");
      lost.textContent = "This hub is not reached: what stands here is " +
        Math.round((Date.now() - read) / 1000) + " s old.";
      lost.hidden = false;
    }
  }

  setInterval(follow, 1000 * Number(document.body.dataset.shownS));
})();
