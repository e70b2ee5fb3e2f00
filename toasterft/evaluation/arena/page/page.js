// Voting: who votes, what they see, and that nothing counts as saved before the server says so.
// What a model wrote enters the page through `textContent` alone.

import { showBoard } from "./board.js";
import { $, Refused, ask, element, say } from "./common.js";
import { openZoom } from "./zoom.js";

const VIEWS = ["wait", "closed", "who", "vote", "done", "board"];
const KEYS = { a: "left", 1: "left", arrowleft: "left", b: "right", 2: "right", arrowright: "right", t: "tie", 3: "tie", x: "bad", 4: "bad" };
const RETRY_SECONDS = 3;
const LONG_ANSWER = 60;

let voter = null; // name, as the server spells it
let shown = null; // the last answer of /api/next, /api/vote or /api/undo
let since = 0; // when the comparison was put on the page
let busy = false; // a vote is on its way

// --- talking to the server ---

// Goes on trying while the server cannot be reached: it may be starting again, or the tunnel be down.
async function insist(path, body) {
  for (;;) {
    try {
      const found = await ask(path, body);
      trouble("");
      return found;
    } catch (error) {
      if (error instanceof Refused && error.status < 500) throw error;
      const why = error instanceof Refused ? error.message : "the server does not answer";
      trouble(`${body ? "Not saved yet: " : ""}${why}. Trying again …`);
      await new Promise((resolve) => setTimeout(resolve, RETRY_SECONDS * 1000));
    }
  }
}

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

// --- views ---

function view(name) {
  for (const each of VIEWS) $(`view-${each}`).hidden = each !== name;
  $("nav").hidden = name === "wait" || name === "closed";
  $("progress").hidden = !(shown && (name === "vote" || name === "done"));
  $("voter").hidden = !voter;
}

async function who() {
  const state = await insist("/api/state");
  const chip = ({ name, done }) => {
    const button = element("button");
    button.type = "button";
    button.append(element("span", "", name), element("span", "muted", `${done} of ${state.total}`));
    button.addEventListener("click", () => start(name));
    const item = element("li");
    item.append(button);
    return item;
  };
  $("who-list").replaceChildren(...state.voters.map(chip));
  $("who-known").hidden = !state.voters.length;
  $("who-wrong").hidden = true;
  view("who");
  $("who-name").focus();
}

async function start(name) {
  try {
    const found = await insist(`/api/next?voter=${encodeURIComponent(name)}`);
    voter = found.voter;
    localStorage.setItem("arena-voter", voter);
    $("voter").replaceChildren(element("span", "", voter));
    show(found);
  } catch (error) {
    if (error.status === 403) return closed(error.message);
    $("who-wrong").textContent = error.message;
    $("who-wrong").hidden = false;
    view("who");
  }
}

function closed(why) {
  $("closed-why").textContent = `The server says: ${why}.`;
  view("closed");
}

// --- one comparison ---

function show(found) {
  shown = found;
  $("progress-bar").max = found.total;
  $("progress-bar").value = found.done;
  $("progress-text").textContent = `${found.done} of ${found.total}`;
  for (const button of document.querySelectorAll("[data-undo]")) button.disabled = found.last_vote === null;
  const battle = found.battle;
  if (!battle) {
    $("done-text").textContent = `${found.total} comparisons by ${voter}.`;
    return view("done");
  }
  $("question").textContent = battle.question;
  $("pictures").replaceChildren(...battle.images.map(picture));
  $("pictures").hidden = !battle.images.length;
  $("out-left").querySelector(".written").replaceChildren(...written(battle.left, battle.right));
  $("out-right").querySelector(".written").replaceChildren(...written(battle.right, battle.left));
  for (const marked of document.querySelectorAll(".chosen")) marked.classList.remove("chosen");
  view("vote");
  scrollTo(0, 0);
  since = performance.now();
  for (const { src } of found.ahead) new Image().src = src;
}

function picture({ src, width, height }, place) {
  const button = element("button", width && width < 300 ? "small" : "");
  button.type = "button";
  const image = element("img");
  image.alt = `Picture ${place + 1} of the question; opens enlarged`;
  if (width) [image.width, image.height] = [width, height];
  image.addEventListener("error", () => button.replaceChildren(element("span", "none", "This picture cannot be shown.")));
  image.src = src;
  button.append(image);
  button.addEventListener("click", () => openZoom(src));
  return button;
}

function written({ reasoning, answer, as_written, cut_off }, other) {
  const parts = [];
  if (!reasoning && other.reasoning) parts.push(element("div", "nothing", "No reasoning"));
  if (reasoning) parts.push(part(`reasoning${as_written ? " as-written" : ""}`, as_written ? "As written" : "Reasoning", reasoning));
  if (cut_off) parts.push(element("div", "note", "Cut off at the length limit."));
  if (answer || !reasoning) parts.push(part(`answer${answer.length > LONG_ANSWER ? " long" : ""}`, "Answer", answer));
  return parts;
}

function part(className, label, text) {
  const block = element("div", className);
  const body = element("div", "text", text || "nothing");
  if (!text) body.classList.add("nothing");
  body.dir = "auto";
  block.append(element("span", "label", label), body);
  return block;
}

// --- voting ---

async function vote(choice) {
  if (busy || !shown?.battle || $("view-vote").hidden) return;
  const seconds = Math.min((performance.now() - since) / 1000, 86400); // a tab left open counts as a day at most
  $(`out-${choice}`)?.classList.add("chosen");
  document.querySelector(`[data-choice=${choice}]`).classList.add("chosen");
  await exclusively(async () => {
    const found = await insist("/api/vote", { voter, battle: shown.battle.id, choice, seconds });
    say("Saved");
    show(found);
  });
}

async function undo() {
  if (busy || !voter || (shown?.last_vote ?? null) === null) return;
  await exclusively(async () => {
    show(await insist("/api/undo", { voter, vote: shown.last_vote }));
    say("Taken back");
  });
}

async function exclusively(action) {
  busy = true;
  try {
    await action();
  } catch (error) {
    if (error.status === 403) closed(error.message);
    else {
      // Cast in another tab, or the server was started anew: show what is open now.
      await start(voter);
      say(error.status === 409 ? `Not counted: ${error.message}` : error.message);
    }
  } finally {
    busy = false;
  }
}

// --- where the page is ---

async function route() {
  if (location.hash === "#board") {
    view("wait");
    try {
      await showBoard($("view-board"), await insist("/api/leaderboard"));
      view("board");
    } catch (error) {
      closed(error.message);
    }
  } else if (voter) {
    await start(voter);
  } else {
    const known = localStorage.getItem("arena-voter");
    await (known ? start(known) : who());
  }
}

async function enter() {
  const key = new URLSearchParams(location.hash.slice(1)).get("key");
  if (key) {
    history.replaceState(null, "", location.pathname); // a spent key is nothing to bookmark
    try {
      await insist("/api/enter", { key });
    } catch (error) {
      return closed(error.message);
    }
  }
  try {
    await route();
  } catch (error) {
    closed(error.message);
  }
  addEventListener("hashchange", () => route().catch((error) => closed(error.message)));
}

$("who-form").addEventListener("submit", (event) => {
  event.preventDefault();
  start($("who-name").value);
});
$("voter").addEventListener("click", () => {
  voter = shown = null;
  localStorage.removeItem("arena-voter");
  $("who-name").value = "";
  if (location.hash) location.hash = "";
  else who().catch((error) => closed(error.message));
});
for (const button of document.querySelectorAll("[data-choice]")) button.addEventListener("click", () => vote(button.dataset.choice));
for (const button of document.querySelectorAll("[data-undo]")) button.addEventListener("click", undo);
addEventListener("keydown", (event) => {
  // A key held down must not vote through the whole list.
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || $("zoom").open) return;
  if (event.target.matches?.("input")) return;
  const key = event.key.toLowerCase();
  if (key in KEYS) vote(KEYS[key]);
  else if (key === "u" || key === "backspace") undo();
  else if (key === "z") $("pictures").querySelector("button")?.click();
  else return;
  event.preventDefault();
});

enter();
