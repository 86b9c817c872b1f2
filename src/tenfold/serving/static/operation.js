// One operation of the API for people: what it takes, commands to copy, what it answers, and a way to try it.

import { Refused, ask } from "./asking.js";
import { make, ms, percent } from "./make.js";

const WIDE = 76; // letters in a line of JSON
const LONG = 20_000; // letters of an answer that are shown
const JSON_TYPE = "application/json";

// Text with `code` in it.
export const words = (text) =>
  text.split("`").map((piece, i) => (i % 2 ? make("code", { textContent: piece }) : piece));

// A path that may be broken before its slashes.
export const broken = (path) => path.split(/(?=\/)/).flatMap((piece) => [make("wbr"), piece]);

// What opens to all about the operation; `open` from the first.
export function article(operation, api, verb, open) {
  const { method, path, operationId, summary, description = "" } = operation;
  const head = [verb, make("code", {}, broken(path)), make("span", { textContent: summary })];
  const parts = [
    ...(description ? [make("p", { className: "sum" }, words(description))] : []),
    ...titled("Parameters", parameters(operation)),
    ...titled("Commands", operation["x-codeSamples"].map(sample)),
    ...titled("Answer", examples(operation.responses[200])),
    ...folded("What its fields are", fields(operation.responses[200], api)),
    ...folded("Refusals", refusals(operation.responses)),
  ];
  if (method === "get" || operationId === "predict") parts.push(trial(operation));
  const top = make("summary", {}, [make("h3", {}, head)]);
  return make("details", { className: "card operation", id: operationId, open }, [top, make("div", {}, parts)]);
}

const titled = (title, found) => (found.length ? [make("h4", { textContent: title }), ...found] : []);

const folded = (title, found) =>
  found.length
    ? [make("details", {}, [make("summary", { textContent: title }), make("div", { className: "scroll" }, found)])]
    : [];

const table = (rows) =>
  make("table", {}, [
    make(
      "tbody",
      {},
      rows.map((cells) =>
        make(
          "tr",
          {},
          cells.map((cell) => make("td", {}, cell)),
        ),
      ),
    ),
  ]);

const code = (text) => make("code", { textContent: text });

function parameters({ parameters: given = [] }) {
  if (!given.length) return [];
  return [table(given.map((own) => [[code(own.name)], [own.in], [...words(own.description), limits(own.schema)]]))];
}

function limits({ type, minimum, maximum, default: usual }) {
  const found = [];
  if (minimum !== undefined && maximum !== undefined) found.push(`${minimum} to ${maximum}`);
  if (usual !== undefined) found.push(`${usual} where it is left out`);
  return found.length ? ` ${type === "integer" ? "A whole number, " : ""}${found.join("; ")}.` : "";
}

// A command with the server's address in its place.
function sample({ label, source }) {
  const text = source.replaceAll("{origin}", new URL(".", location.href).href.replace(/\/$/, ""));
  const button = make("button", { type: "button", textContent: "Copy", ariaLive: "polite" });
  button.addEventListener("click", async () => {
    button.textContent = (await copied(text)) ? "Copied" : "Select it";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  const shown = make("div", { className: "sample" }, [make("pre", { textContent: text, tabIndex: 0 }), button]);
  return make("div", {}, [...(label ? [make("p", { className: "label", textContent: label })] : []), shown]);
}

// Browsers give the clipboard to pages that came over https, and to those of this very machine.
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

function examples({ content }) {
  const { example, examples: several = {} } = content[JSON_TYPE] ?? {};
  const found =
    example === undefined ? Object.entries(several).map(([name, own]) => [name, own.value]) : [["", example]];
  return found.map(([name, value]) =>
    make("div", {}, [
      ...(name ? [make("p", { className: "label", textContent: name[0].toUpperCase() + name.slice(1) })] : []),
      make("pre", { className: "answer", textContent: written(value), tabIndex: 0 }),
    ]),
  );
}

// JSON with short lists and objects on one line.
function written(value, indent = "") {
  const flat = (own) =>
    own === null || typeof own !== "object"
      ? JSON.stringify(own)
      : Array.isArray(own)
        ? `[${own.map(flat).join(", ")}]`
        : `{${Object.entries(own)
            .map(([name, of]) => `${JSON.stringify(name)}: ${flat(of)}`)
            .join(", ")}}`;
  const line = flat(value);
  if (line.length + indent.length <= WIDE || value === null || typeof value !== "object") return line;
  const deeper = `${indent}  `;
  const rows = Array.isArray(value)
    ? value.map((own) => deeper + written(own, deeper))
    : Object.entries(value).map(([name, own]) => `${deeper}${JSON.stringify(name)}: ${written(own, deeper)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return `${open}\n${rows.join(",\n")}\n${indent}${close}`;
}

// Rows for all fields of an answer, by their way in: predictions[].top[].class.
function fields({ content }, api) {
  const rows = [];
  const walk = (schema, way) => {
    const own = schema.$ref ? { ...api.components.schemas[schema.$ref.split("/").pop()], ...schema } : schema;
    if (way && own.type && (own.description || !own.properties))
      rows.push([[code(way)], [[own.type].flat().join(" or ")], words(own.description ?? "")]);
    for (const [name, of] of Object.entries(own.properties ?? {})) walk(of, way ? `${way}.${name}` : name);
    if (own.items) walk(own.items, `${way}[]`);
    for (const other of own.oneOf ?? []) walk(other, way);
  };
  walk(content[JSON_TYPE]?.schema ?? {}, "");
  const known = new Set();
  const once = rows.filter(([[name]]) => !known.has(name.textContent) && known.add(name.textContent));
  return once.length ? [table(once)] : [];
}

function refusals(responses) {
  const rows = Object.entries(responses).flatMap(([status, { content }]) =>
    Object.entries(content[JSON_TYPE]?.examples ?? {})
      .filter(([, { summary }]) => summary)
      .map(([name, { summary }]) => [[status], [code(name)], words(summary)]),
  );
  return rows.length ? [table(rows)] : [];
}

// ---- trying ---------------------------------------------------------------------------------------------------------

function trial({ method, path, parameters: given = [] }) {
  const asked = given.filter((own) => own.in !== "header");
  const inputs = asked.map((own) => {
    const input = make("input", {
      type: "text",
      name: own.name,
      value: own.example ?? "",
      required: own.required ?? false,
    });
    if (own.schema.default !== undefined) input.placeholder = own.schema.default;
    return [own, input, make("label", {}, [own.name, input])];
  });
  const file = method === "post" ? make("input", { type: "file", accept: "image/*", required: true }) : null;
  const told = make("p", { className: "small", role: "status" });
  const shown = make("pre", { className: "answer", hidden: true, tabIndex: 0 });
  const button = make("button", { className: "first", textContent: "Try it" });
  const labels = inputs.map(([, , label]) => label);
  if (file) labels.unshift(make("label", {}, ["A picture", file]));
  const form = make("form", { className: "try" }, [
    make("div", { className: "tools" }, [...labels, button]),
    told,
    shown,
  ]);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    const began = performance.now();
    const [status, text] = await tried(address(path, inputs), file?.files[0]);
    told.textContent = `${status}, ${ms(performance.now() - began)}`;
    shown.textContent = text.length > LONG ? `${text.slice(0, LONG)}\n… ${percent(LONG / text.length, 0)} of it` : text;
    shown.hidden = !text;
    button.disabled = false;
  });
  return form;
}

function address(path, inputs) {
  const query = new URLSearchParams();
  let filled = path.slice(1) || "./"; // relative to where the page stands
  for (const [own, input] of inputs) {
    if (own.in === "path") filled = filled.replace(`{${own.name}}`, encodeURIComponent(input.value));
    else if (input.value) query.set(own.name, input.value);
  }
  return query.size ? `${filled}?${query}` : filled;
}

async function tried(path, body = null) {
  try {
    const response = await ask(path, { body, tries: 1 });
    const text = await response.text();
    const json = response.headers.get("content-type")?.startsWith(JSON_TYPE);
    return [`${response.status} ${response.statusText}`, json ? written(JSON.parse(text)) : text];
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return [error.status ? `${error.status} ${error.code}` : "No answer", error.message];
  }
}
