// The leaderboard: ratings with intervals, pairs, voters, downloads.

import { ask, element, say } from "./common.js";

const SVG = "http://www.w3.org/2000/svg";
const round = (value) => Math.round(value).toString();
const percent = ({ value, low, high }) => `${round(100 * value)}\u00a0% (${round(100 * low)}–${round(100 * high)})`;

export async function showBoard(view, board) {
  const parts = [element("h1", "", "Leaderboard")];
  if (!board.models.length) {
    parts.push(element("p", "muted", "No votes yet."));
  } else {
    parts.push(
      element("p", "muted", `${board.votes} ${board.votes === 1 ? "vote" : "votes"}. Ratings are Bradley–Terry's with 95\u00a0% intervals, mean 1500; 400 points are odds of ten to one. A tie, or both bad, is half a win for each.`),
      models(board),
    );
    if (board.groups.length > 1) {
      const groups = board.groups.map((group) => group.join(", ")).join(" | ");
      parts.push(element("p", "wrong", `Never compared, so not comparable: ${groups}`));
    }
    parts.push(section("Pair by pair", pairs(board)), section("Voters", ...voters(board)));
  }
  parts.push(downloads(), section("Add a device", ...invitation()));
  view.replaceChildren(...parts);
}

function section(title, ...content) {
  const made = element("section");
  made.append(element("h2", "", title), ...content);
  return made;
}

function table(heads, rows) {
  const made = element("table");
  const head = made.createTHead().insertRow();
  for (const [text, title] of heads) {
    const cell = element("th", "", text);
    cell.scope = "col";
    if (title) cell.title = title;
    head.append(cell);
  }
  const body = made.createTBody();
  for (const cells of rows) {
    const row = body.insertRow();
    for (const cell of cells) row.append(cell instanceof Node ? cell : element("td", "", cell));
  }
  const scroll = element("div", "scroll");
  scroll.append(made);
  return scroll;
}

function models(board) {
  const low = Math.min(...board.models.map((row) => row.rating.low));
  const high = Math.max(...board.models.map((row) => row.rating.high));
  const heads = [["Model"], ["Rating"], ["95\u00a0% interval"], ["Elo", "Online Elo, K = 32: depends on the order of the votes"], ["Won"], ["Lost"], ["Tied"], ["Both bad"]];
  return table(
    heads,
    board.models.map((row, place) => {
      const name = element("td", "name", `${place + 1}. ${row.model}`);
      name.title = row.run;
      return [name, round(row.rating.value), range(row.rating, low, high), round(row.elo), row.wins, row.losses, row.ties, row.both_bad].map((cell) => (cell instanceof Node ? cell : element("td", "", cell)));
    }),
  );
}

function range({ value, low, high }, from, to) {
  const cell = element("td", "range");
  const at = (points) => `${to > from ? (100 * (points - from)) / (to - from) : 50}%`;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${round(low)} to ${round(high)}`);
  const draw = (tag, attributes) => {
    const made = document.createElementNS(SVG, tag);
    for (const [name, given] of Object.entries(attributes)) made.setAttribute(name, given);
    svg.append(made);
  };
  draw("line", { x1: "0", x2: "100%", y1: "50%", y2: "50%" });
  draw("line", { class: "ci", x1: at(low), x2: at(high), y1: "50%", y2: "50%" });
  draw("circle", { cx: at(value), cy: "50%", r: "5" });
  cell.append(svg, element("span", "sub", `${round(low)} – ${round(high)}`));
  return cell;
}

function pairs(board) {
  const met = board.pairs.filter((row) => row.votes);
  return table(
    [["Pair"], ["First preferred (95\u00a0%)", "Chance that a vote prefers the first, from all votes"], ["Won"], ["Lost"], ["Tied"], ["Both bad"]],
    met.map((row) => {
      const name = element("td", "name light", row.a);
      name.append(element("span", "sub", `against ${row.b}`));
      return [name, percent(row.preferred), row.a_wins, row.b_wins, row.ties, row.both_bad];
    }),
  );
}

function voters(board) {
  const parts = [element("p", "", board.voters.map(({ voter, votes }) => `${voter} ${votes}`).join(" · "))];
  const agreement = board.agreement;
  if (!agreement) {
    parts.push(element("p", "muted", "Agreement is shown once two people have judged the same comparison."));
    return parts;
  }
  const alpha = agreement.alpha === null ? "" : ` Krippendorff’s alpha is ${agreement.alpha.toFixed(2).replace("-", "−")}: 1 is full agreement, 0 is chance.`;
  parts.push(element("p", "", `Two people gave the same verdict (first, second, or neither) in ${percent(agreement.agreed)} of ${agreement.shared} shared comparisons.${alpha}`));
  if (agreement.couples.length > 1) {
    parts.push(
      table(
        [["Voters"], ["Same verdict (95\u00a0%)"], ["Shared"]],
        agreement.couples.map((row) => [element("td", "name light", row.voters.join(" and ")), percent(row.agreed), row.shared]),
      ),
    );
  }
  return parts;
}

function downloads() {
  const row = element("p", "row downloads");
  for (const [href, text] of [["/leaderboard.csv", "Leaderboard as CSV"], ["/votes.csv", "Votes as CSV"]]) {
    const link = element("a", "button", text);
    link.href = href;
    link.download = "";
    row.append(link);
  }
  return row;
}

function invitation() {
  const button = element("button", "", "Make a link");
  button.type = "button";
  const out = element("div");
  out.id = "invite-out";
  button.addEventListener("click", async () => {
    const { key } = await ask("/api/invite", {});
    const field = element("input");
    field.readOnly = true;
    field.value = `${location.origin}/#key=${key}`;
    field.setAttribute("aria-label", "Link for another device");
    field.addEventListener("focus", () => field.select());
    const copy = element("button", "", "Copy");
    copy.type = "button";
    copy.addEventListener("click", async () => {
      field.focus();
      await navigator.clipboard?.writeText(field.value).then(() => say("Copied"), () => {});
    });
    const row = element("div", "row");
    row.append(field, copy);
    out.replaceChildren(row, element("span", "muted", "Works once. Through a tunnel, start the arena with --host and the tunnel’s name, and put its address in place of the one before /#key."));
  });
  return [element("p", "muted", "Let someone else vote, or vote on your phone. This page is served on this computer alone; to reach it from elsewhere, run a tunnel of your own."), button, out];
}
