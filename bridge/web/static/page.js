// Light live updates and small conveniences. Everything works without it.

const EVERY = 5000; // ms between refreshes of a page that is looked at
const stale = document.getElementById("stale");
let asOf = new Date();

// What is shown is not true any more, as far as anybody knows: it must not go on looking well.
function old(why) {
  document.body.classList.toggle("old", why !== "");
  stale.hidden = why === "";
  const text = `${why} What this page shows is of ${asOf.toLocaleTimeString()}; it is asked again every ${EVERY / 1000} s.`;
  if (why && stale.textContent !== text) stale.textContent = text;
}

// Is a person busy in this part of the page? Then it must not change under their hands.
function busy(part) {
  return part.contains(document.activeElement) && document.activeElement !== document.body
    || part.querySelector("input:checked, details[open], dialog[open]") !== null
    || !document.getSelection().isCollapsed && part.contains(document.getSelection().anchorNode);
}

async function refresh() {
  const parts = [...document.querySelectorAll("[data-live][id]")].filter((part) => !busy(part));
  if (document.hidden || parts.length === 0) return;
  try {
    const answer = await fetch(location.href, { headers: { "X-Live": "1" }, redirect: "error" });
    if (answer.status === 401) { location.reload(); return; }
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!answer.ok) { old(`${fresh.querySelector("h1")?.textContent || `It answers ${answer.status}`}.`); return; }
    for (const part of parts) {
      const now = fresh.getElementById(part.id);
      if (now && !now.isEqualNode(part) && !busy(part)) part.replaceWith(document.adoptNode(now));
    }
    asOf = new Date();
    old("");
  } catch {
    old("The bridge does not answer.");
  }
}

if (document.querySelector("[data-live][id]")) setInterval(refresh, EVERY);

document.addEventListener("change", (event) => {
  const box = event.target;
  if (box.matches("[data-all]")) {
    for (const other of box.closest("form").querySelectorAll(`input[name="${box.dataset.all}"]`)) other.checked = box.checked;
  }
  if (box.matches("[data-submit]")) box.form.requestSubmit();
});

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm;
  if (question && !confirm(question)) { event.preventDefault(); return; }
  if (event.target.method === "post") {
    // Once is enough; a second press sends nothing.
    setTimeout(() => { for (const button of event.target.querySelectorAll("button")) button.disabled = true; });
  }
});
