// What script adds to the page: the count is live, and a click needs no new page. Without it the forms do all.
//
// The server's states are ordered by `version`: the number of the last transaction in them. What is shown is the newest state,
// and, while own clicks are on their way, those on top of it. Once all are answered, the next state that holds them is
// shown: so the number never loses a click that it has shown, unless the server says that it was refused.

const output = document.querySelector("#count");
const buttons = document.querySelector(".buttons");
const story = document.querySelector("#story");
const stream = document.querySelector("#stream");
const role = document.querySelector("#role");
const announcer = document.querySelector("#announcer");

let state = { count: BigInt(output.value.replace("−", "-")), version: -1 }; // the newest that the server has sent
let settled = state.count; // what is shown when no click is under way
let needed = { version: -1 }; // the answer whose version holds all that are in `answered`
const pending = new Map(); // own clicks without an answer: key -> 1n or -1n
let answered = 0n; // own clicks with one, not yet in `settled`

// ---- what is shown

function render() {
  let shown = settled + answered;
  for (const step of pending.values()) shown += step;
  const text = String(shown).replace("-", "−"); // As the server writes it.
  if (output.value !== text) {
    output.value = text;
    output.className = `digits-${text.length}${shown < 0n ? " negative" : ""}`;
    announce();
  }
  output.classList.toggle("unsettled", pending.size > 0);
}

function settle() {
  if (pending.size > 0 || state.version < needed.version) return;
  if (needed.position && state.primary !== needed.instance) return compare();
  needed = { version: -1 };
  settled = state.count;
  answered = 0n;
  render();
}

// Once it rests, and while it does not, every few seconds; but never one that may still be taken back.
let announcing;
let changing = 0; // since when it has not been announced
function announce() {
  const now = performance.now();
  changing ||= now;
  clearTimeout(announcing);
  announcing = setTimeout(announceSettled, Math.min(1000, changing + 5000 - now));
}

function announceSettled() {
  if (pending.size > 0) return (announcing = setTimeout(announceSettled, 1000));
  changing = 0;
  announcer.textContent = `The count is ${output.value}`;
}

// ---- clicks

buttons.addEventListener("submit", (event) => {
  event.preventDefault();
  const intent = event.submitter.value;
  const key = newKey();
  pending.set(key, intent === "increment" ? 1n : -1n);
  render();
  send(intent, key, performance.now());
});

const PATIENCE = 10_000; // The server holds a click for some seconds while there is no primary.
// What says nothing of the click itself: broken off on the way, too slow, too many.
const passing = [400, 408, 425, 429];

async function send(intent, key, since, attempt = 0) {
  const body = new URLSearchParams({ intent, key });
  let answer;
  try {
    const signal = AbortSignal.timeout(PATIENCE);
    // Kept alive: whoever leaves takes no click back.
    answer = await fetch("/", { method: "POST", body, signal, keepalive: true, headers: { accept: "application/json" } });
    if (answer.ok) return counted(key, await answer.json(), performance.now() - since);
  } catch {
    answer = undefined; // The network, or an answer that broke off or never came.
  }
  if (answer && answer.status < 500 && !passing.includes(answer.status)) return refused(key, answer);
  // Lost, or counted and its answer lost: the same key makes sure that it counts once.
  tell("Not saved yet. Trying again.", "waiting");
  const pause = Math.min(250 * 2 ** attempt, 4000);
  setTimeout(() => send(intent, key, since, attempt + 1), pause);
}

function counted(key, result, milliseconds) {
  answered += pending.get(key);
  pending.delete(key);
  if (result.version > needed.version) needed = result;
  const written = `written at ${result.instance} in ${result.region}, ${confirmed(result)}, after ${Math.round(milliseconds)} ms`;
  if (!isUnsaved()) tell(`Your click: ${written}.`);
  settle();
  render();
}

async function refused(key, answer) {
  pending.delete(key);
  const text = await answer.text().catch(() => ""); // It may break off: what matters has been said.
  const page = new DOMParser().parseFromString(text, "text/html");
  const reason = page.querySelector(".message")?.textContent ?? "";
  tell(`Not counted. ${reason}`, "refused");
  settle();
  render();
}

function confirmed({ confirmation, by }) {
  if (confirmation === "candidates") return `confirmed by ${by.join(" and ")}`;
  if (confirmation === "alone") return "acknowledged alone";
  return "committed";
}

function tell(text, kind = "") {
  if (kind && story.textContent !== text) announcer.textContent = text; // Where all is well, the count is announced.
  story.textContent = text;
  story.className = kind;
}

// Whether a click has failed that is still to be counted.
function isUnsaved() {
  return pending.size > 0 && story.className === "waiting";
}

// `crypto.randomUUID` is there over https alone.
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// ---- the stream

const SILENCE = 35_000; // The server says something each 15 s.
let source;
let silence;
let last = output.dataset.position ?? ""; // the id of the last event, and at first where the page itself stands
let isNew; // nothing has come from it yet
let reopening;
let shown = {}; // the role, and the last primary
let believing; // that this one is back
let attempts = 0;

function open() {
  close();
  heard();
  isNew = true;
  source = new EventSource(last ? `/events?last=${last}` : "/events");
  source.addEventListener("count", (event) => receive(event, false));
  source.addEventListener("reset", (event) => receive(event, true));
  source.addEventListener("alive", heard);
  source.addEventListener("error", lost);
}

function close() {
  clearTimeout(reopening);
  clearTimeout(silence);
  source?.close();
}

// A stream may outlive its network for minutes, and say nothing.
function heard() {
  clearTimeout(silence);
  silence = setTimeout(lost, SILENCE);
}

function receive(event, isReset) {
  heard();
  attempts = 0;
  last = event.lastEventId;
  const { count, version, instance, region, role, primary, isOld } = JSON.parse(event.data);
  // Another history, or (without LiteFS, where events have no id) another process, which counts from nothing.
  if (isReset || (isNew && !last)) needed.version = Math.min(needed.version, version);
  isNew = false;
  state = { count: BigInt(count), version, primary };
  settle();
  live(instance, region, role, primary, isOld);
}

// This node follows another primary than the one that counted the click. Where the two have written apart from each other,
// they share numbers: the server compares what they stand for, and hands the stream to who has the click.
function compare() {
  last = needed.position;
  needed.position = null;
  state.version = -1;
  open();
}

// The browser tries again by itself after some errors, and gives up after others: this page does not.
function lost() {
  close();
  // Of the first time: the number has been the same since.
  if (attempts === 0) say("lost", `Connection lost at ${new Date().toLocaleTimeString()}`);
  const pause = Math.min(250 * 2 ** attempts++, 4000) * (0.5 + Math.random() / 2);
  reopening = setTimeout(open, pause);
}

function live(instance, region, is, primary, isOld) {
  document.querySelector("#instance").textContent = instance;
  document.querySelector("#region").textContent = region;
  // Cut off, or without its LiteFS, an instance shows what it had.
  if (isOld || is === "unknown") say("lost", "Not up to date");
  else say("live", "Live");
  // While a dead primary's lease lasts, LiteFS names that one each second, for a moment: it has to last.
  if (shown.is === "no primary" && is === "replica" && primary === shown.primary) {
    believing ??= setTimeout(showRole, 1500, is, primary);
  } else {
    showRole(is, primary);
  }
}

function showRole(is, primary) {
  believing = clearTimeout(believing);
  shown = { is, primary: primary ?? shown.primary };
  write(role, ...({
    standalone: ["Standalone: this instance writes"],
    primary: ["This instance is ", strong("primary")],
    replica: ["The primary is ", strong(primary)],
    "no primary": ["No primary at this moment: reading works, writing resumes soon"],
  }[is] ?? ["LiteFS does not answer here: this page may be old"]));
}

function strong(text) {
  return Object.assign(document.createElement("b"), { textContent: text });
}

function say(kind, text) {
  stream.className = kind;
  write(stream, text);
}

// Only what is new: whatever is put there is read out.
function write(element, ...parts) {
  const fresh = document.createElement("p");
  fresh.append(...parts);
  if (element.textContent !== fresh.textContent) element.replaceChildren(...fresh.childNodes);
}

addEventListener("beforeunload", (event) => isUnsaved() && event.preventDefault());
addEventListener("offline", lost);
addEventListener("online", open);
addEventListener("pageshow", (event) => event.persisted && open());
addEventListener("pagehide", close);
document.querySelector("#live").hidden = false;
open();
