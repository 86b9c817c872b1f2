// Classes with their probabilities as bars that move to their length and place. A class keeps its bar from one answer
// to the next, so that the eye can follow it.

import { by, make, percent } from "./make.js";

const WIDEST = 14; // letters of a name; longer ones are cut

const [list, limit] = ["bars", "limit"].map(by);
const rows = new Map(); // class → its row
let settling = 0;

// `top` as the server gives it, the most probable first. `pick`, called with a class, makes each bar a button.
export function show(top, threshold, pick) {
  const names = new Set(top.map((entry) => entry.class));
  for (const [name, row] of rows) {
    if (names.has(name) && row.pick === pick) continue;
    row.item.remove();
    rows.delete(name);
  }
  const longest = Math.max(...top.map((entry) => entry.class.length));
  list.style.setProperty("--rows", top.length);
  list.style.setProperty("--names", `${Math.min(longest, WIDEST) + 1}ch`);
  list.classList.toggle("limited", threshold !== null);
  limit.hidden = threshold === null;
  if (threshold !== null) {
    list.style.setProperty("--threshold", threshold);
    limit.textContent = `Below ${percent(threshold)}, the dashed line, it says unknown.`;
  }
  top.forEach((entry, place) => {
    const row = rows.get(entry.class) ?? added(entry.class, place, pick);
    row.item.style.setProperty("--place", place);
    row.item.classList.toggle("most", place === 0);
    row.bar.style.transform = `scaleX(${entry.probability})`;
    row.number.textContent = percent(entry.probability);
  });
  clearTimeout(settling);
  settling = setTimeout(() => settle(top), 400);
}

// Which class the heat map is for; null is none.
export function mark(name) {
  for (const [own, row] of rows) if (row.pick) row.line.setAttribute("aria-pressed", own === name);
}

export function clear() {
  rows.clear();
  list.replaceChildren();
}

function added(name, place, pick) {
  const bar = make("i");
  const number = make("span", { className: "number" });
  const parts = [make("span", { className: "name", textContent: name, title: name })];
  parts.push(make("span", { className: "rail" }, [bar]), number);
  const line = pick ? make("button", { type: "button", onclick: () => pick(name) }, parts) : make("div", {}, parts);
  const item = make("li", {}, [line]);
  item.style.setProperty("--place", place);
  bar.style.transform = "scaleX(0)";
  list.append(item);
  item.getBoundingClientRect(); // so that the bar grows from here
  const row = { item, line, bar, number, pick };
  rows.set(name, row);
  return row;
}

// When all is in its place: the order that screen readers and the Tab key go by.
function settle(top) {
  const focused = document.activeElement;
  for (const entry of top) if (rows.has(entry.class)) list.append(rows.get(entry.class).item);
  if (list.contains(focused)) focused.focus();
}
