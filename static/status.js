// What script adds to the status page: it is live. Each second the part that changes is fetched and put in the place of what is
// there, wherever that differs: so focus and motion stay.

const PERIOD = 1000;
const stream = document.querySelector("#stream");
const pause = document.querySelector("#pause");

let timer;
let failures = 0;
let is_paused = false;

async function refresh() {
  clearTimeout(timer);
  if (is_paused || document.hidden) return;
  try {
    const answer = await fetch("/status/live", { signal: AbortSignal.timeout(5 * PERIOD) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (is_paused) return;
    update(document.querySelector("#status"), fresh.querySelector("#status"));
    failures = 0;
    say("live", "Live");
  } catch {
    if (failures++ === 0) say("lost", `Connection lost at ${new Date().toLocaleTimeString()}`);
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, Math.min(PERIOD * 2 ** failures, 8 * PERIOD));
}

function update(old, fresh) {
  if (old.nodeName !== fresh.nodeName || old.childNodes.length !== fresh.childNodes.length) return old.replaceWith(fresh);
  if (old.nodeType === Node.TEXT_NODE && old.data !== fresh.data) old.data = fresh.data;
  if (old.nodeType !== Node.ELEMENT_NODE) return;
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const children = [...fresh.childNodes];
  [...old.childNodes].forEach((child, at) => update(child, children[at]));
}

function say(kind, text) {
  stream.className = kind;
  // Only what is new: whatever is put there is read out.
  if (stream.textContent !== text) stream.textContent = text;
  document.body.classList.toggle("is-live", kind === "live");
}

pause.addEventListener("click", () => {
  is_paused = !is_paused;
  pause.setAttribute("aria-pressed", is_paused);
  if (is_paused) say("", "Paused");
  refresh();
});

addEventListener("online", refresh);
document.addEventListener("visibilitychange", refresh);
for (const waiting of document.querySelectorAll(".waiting")) waiting.classList.remove("waiting");
refresh();
