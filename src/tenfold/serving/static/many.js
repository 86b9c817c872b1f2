// Several pictures: a row for each, what they are in all, and a table to take away.

import { by, count as counted, make, percent } from "./make.js";

const THUMB = 96; // pixels, for 48 on the screen

const [section, body, summary] = ["many", "rows", "summary"].map(by);

// A row for `item` ({name, picture}); `pick` is called when it is chosen.
export function add(item, pick) {
  const thumb = make("canvas", { width: THUMB, height: THUMB, ariaHidden: "true" });
  const button = make("button", { type: "button", className: "pick", title: item.name, onclick: () => pick(item) }, [
    thumb,
    make("span", { className: "name", textContent: item.name }),
  ]);
  const row = make("tr", {}, [make("td", {}, [button]), ...waiting()]);
  item.row = { row, button, thumb };
  body.append(row);
}

const waiting = () => [make("td", { className: "soft", textContent: "…" }), make("td")];

// Writes the item's answer, or why there is none, into its row.
export function update(item) {
  const { row } = item.row;
  const cells = [row.cells[0]];
  if (item.refused) cells.push(make("td", { className: "wrong", colSpan: 2, textContent: item.refused.message }));
  else if (item.answer) {
    const { class: name, unknown, probability } = item.answer;
    cells.push(make("td", { className: unknown ? "unknown" : "", textContent: name }));
    cells.push(make("td", { className: "number", textContent: percent(probability) }));
  } else cells.push(...waiting());
  row.replaceChildren(...cells);
}

export function mark(items, current) {
  section.hidden = items.length < 2;
  for (const item of items) {
    item.row.row.classList.toggle("current", item === current);
    item.row.button.setAttribute("aria-current", item === current);
  }
}

export function clear() {
  body.replaceChildren();
  section.hidden = true;
}

// How many there are of each class, the most frequent first.
export function summarize(items) {
  const found = new Map();
  const add = (word) => found.set(word, (found.get(word) ?? 0) + 1);
  let done = 0;
  for (const item of items) {
    if (item.refused || item.answer) done++;
    if (item.refused) add("not read");
    else if (item.answer) add(item.answer.class);
  }
  const classes = [...found].sort((a, b) => b[1] - a[1]).map(([word, n]) => `${n} ${word}`);
  const shown = classes.length > 12 ? [...classes.slice(0, 12), "…"] : classes;
  const all = counted(items.length, "picture");
  summary.querySelector("b").textContent = done < items.length ? `${done} of ${all}` : all;
  summary.querySelector("span").textContent = shown.map((part) => `· ${part}`).join(" ");
  for (const id of ["csv", "again"]) by(id).disabled = done < items.length;
  by("again").hidden = !items.some((item) => item.refused && again(item.refused));
  by("halt").hidden = done === items.length;
  return done === items.length;
}

// Whether it may go otherwise another time: the server was full, or gone.
export const again = (refused) => refused.status === 0 || refused.status >= 500;

// The picture, small, in its row. Browsers don't show every kind that the server reads.
export async function thumbnail(item) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(item.picture, { resizeWidth: THUMB, resizeQuality: "medium" });
  } catch {
    item.row.thumb.classList.add("unseen");
    return;
  }
  const scale = THUMB / Math.min(bitmap.width, bitmap.height);
  const [width, height] = [scale * bitmap.width, scale * bitmap.height];
  const context = item.row.thumb.getContext("2d");
  context.drawImage(bitmap, (THUMB - width) / 2, (THUMB - height) / 2, width, height);
  bitmap.close();
}

// ---- the table to take away, as `tenfold predict --csv` writes it ---------------------------------------------------

function csv(items, count) {
  const places = Array.from({ length: count }, (_, i) => (i ? `_${i + 1}` : ""));
  const lines = [["path", ...places.flatMap((place) => [`class${place}`, `probability${place}`]), "unknown", "error"]];
  for (const { name, answer, refused } of items) {
    const pairs = Array.from({ length: count }, (_, i) => {
      const entry = answer?.top[i];
      return entry ? [text(entry.class), String(Number(entry.probability.toPrecision(6)))] : ["", ""];
    });
    lines.push([text(name), ...pairs.flat(), answer?.unknown ? "yes" : "", text(refused?.message ?? "")]);
  }
  return lines.map((cells) => `${cells.map(quoted).join(",")}\n`).join("");
}

// A spreadsheet takes a cell that begins so for a formula, and names come from strangers.
const text = (value) => (/^[=+\-@\t\r]/.test(value) ? `'${value}` : value);

const quoted = (cell) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);

// As the file `name`, with the `count` most probable classes of each picture.
export function save(items, name, count) {
  const address = URL.createObjectURL(new Blob([csv(items, count)], { type: "text/csv;charset=utf-8" }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
