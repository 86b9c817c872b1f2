// A model's card: what it is, how good it is and where it comes from.

import * as asking from "./asking.js";
import * as key from "./key.js";
import { by, count, make, percent, whole } from "./make.js";

const MANY = 24; // classes that are shown without being asked for
const SPLITS = [
  ["test", "test pictures"],
  ["val", "validation pictures"],
];

export const accuracy = (model) => {
  const test = model.metrics.test;
  return test && "accuracy" in test ? `${percent(test.accuracy)} of ${whole(test.n)} test pictures right` : "";
};

export function fill(model) {
  by("card-title").textContent = model.name;
  by("facts").replaceChildren(...facts(model).map(([name, ...parts]) => fact(name, parts)));
  by("recipe").hidden = !Object.keys(model.recipe).length;
  by("recipe-text").textContent = lines(model.recipe).join("\n");
  by("report").replaceChildren(...report(model));
}

export const chips = (classes) => {
  const shown = classes.slice(0, MANY).map((name) => make("li", { textContent: name }));
  if (classes.length > MANY)
    shown.push(make("li", { className: "soft", textContent: `and ${whole(classes.length - MANY)} more` }));
  return make("ul", { className: "chips" }, shown);
};

function fact(name, parts) {
  const cell = make("td");
  for (const part of parts) cell.append(part instanceof Node ? part : make("div", { textContent: part }));
  return make("tr", {}, [make("th", { scope: "row", textContent: name }), cell]);
}

function facts(model) {
  const { geometry, metrics, dataset, recipe } = model;
  const found = [["Classes", `${whole(model.classes.length)}`, chips(model.classes)]];
  const measured = SPLITS.filter(([split]) => metrics[split] && "accuracy" in metrics[split]);
  if (measured.length)
    found.push([
      "Accuracy",
      ...measured.map(([split, of]) => `${percent(metrics[split].accuracy, 2)} of ${whole(metrics[split].n)} ${of}`),
    ]);
  if (metrics.test?.ece !== undefined)
    found.push([
      "Calibration error",
      `${percent(metrics.test.ece, 2)} (ECE): how far a probability is, on average, from how often it is right`,
    ]);
  found.push([
    "Unknown",
    model.threshold === null
      ? "Never said: the model has no threshold"
      : `Said where no class has ${percent(model.threshold)}`,
  ]);
  const resized = { squash: "squeezed", crop: "cut", pad: "padded" }[geometry.resize] ?? geometry.resize;
  const pixels = `${geometry.height} × ${geometry.width} pixels; pictures are ${resized} to it`;
  found.push([
    "Network",
    [model.network, model.parameters && count(model.parameters, "parameter")].filter(Boolean).join(", ") || "not told",
    pixels,
  ]);
  const trained = [
    model.created && day(model.created),
    model.engine && `with ${model.engine}`,
    dataset.name && `on ${dataset.name}`,
  ];
  if (trained.some(Boolean)) found.push(["Trained", trained.filter(Boolean).join(" "), ...counts(dataset.counts)]);
  if (recipe.name) found.push(["Recipe", [recipe.name, recipe.description].filter(Boolean).join(": ")]);
  found.push(["Version", model.version]);
  return found;
}

const day = (text) => new Date(text).toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric" });

const counts = (given) =>
  given
    ? [
        Object.entries(given)
          .map(([split, n]) => `${whole(n)} ${split}`)
          .join(", ") + " pictures",
      ]
    : [];

// A recipe as YAML would have it, near enough to read.
function lines(value, indent = "") {
  return Object.entries(value).flatMap(([name, own]) =>
    own && typeof own === "object" && !Array.isArray(own)
      ? [`${indent}${name}:`, ...lines(own, `${indent}  `)]
      : [`${indent}${name}: ${typeof own === "string" ? own : JSON.stringify(own)}`],
  );
}

// A link to the report. Where the server asks for a key a link can't carry it; then the report is saved as a file, for
// a page made of it here would have this page's rights.
function report(model) {
  if (!model.report) return [];
  const path = `models/${encodeURIComponent(model.name)}/report`;
  if (!key.get())
    return [make("a", { href: path, target: "_blank", rel: "noopener", textContent: "The report of its training" })];
  const told = make("span", { className: "small wrong", role: "status" });
  const save = async () => {
    try {
      const data = await (await asking.ask(path)).blob();
      const address = URL.createObjectURL(new Blob([data], { type: "application/octet-stream" }));
      make("a", { href: address, download: `${model.name}-report.html` }).click();
      setTimeout(() => URL.revokeObjectURL(address), 10_000);
    } catch (error) {
      told.textContent = error.message;
    }
  };
  return [make("button", { type: "button", textContent: "Save the report of its training", onclick: save }), told];
}
