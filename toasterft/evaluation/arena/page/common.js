// What every part of the page uses: elements, requests, a word in passing.

export const $ = (id) => document.getElementById(id);

// Text goes in as text, never as HTML.
export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// A request that the server answered with an error.
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function ask(path, body) {
  const options = body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, found.error || `the server answered ${answer.status}`);
  return found;
}

let silence;
export function say(text) {
  $("said").textContent = text;
  $("said").classList.add("shown");
  clearTimeout(silence);
  silence = setTimeout(() => $("said").classList.remove("shown"), 1400);
}
