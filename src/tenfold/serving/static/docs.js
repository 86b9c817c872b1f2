// The API's page, made from openapi.json: nothing about an address is written here.

import * as asking from "./asking.js";
import * as key from "./key.js";
import { by, make } from "./make.js";
import { article, broken, words } from "./operation.js";

const METHODS = ["get", "post"];

async function begin() {
  let api;
  try {
    api = await asking.json("openapi.json"); // with the key, where there is one: then it names the models
  } catch (error) {
    by("trouble").textContent = error.message;
    by("trouble").hidden = false;
    return;
  }
  const [first, ...rest] = api.info.description.split("\n\n");
  by("lead").textContent = first;
  by("about").replaceChildren(...rest.map((text) => make("p", {}, words(text))), ...notes(api));
  by("version").textContent = `tenfold ${api.info.version}`;
  const operations = METHODS.flatMap((method) =>
    Object.entries(api.paths).flatMap(([path, found]) => (found[method] ? [{ method, path, ...found[method] }] : [])),
  );
  const order = Object.keys(api.paths);
  operations.sort((a, b) => order.indexOf(a.path) - order.indexOf(b.path));
  const tags = api.tags.map((tag) => ({ ...tag, own: operations.filter((own) => own.tags.includes(tag.name)) }));
  by("contents").replaceChildren(
    ...tags.flatMap(({ name, own }) => [make("b", { textContent: name }), ...own.map(link)]),
  );
  by("operations").replaceChildren(...tags.map((tag) => part(tag, api)));
  refusals(api);
  by("give").hidden = !api.security || Boolean(key.get());
  by("forget").hidden = !key.get();
  follow();
}

// Opens what the address names.
function follow() {
  const named = by(location.hash.slice(1));
  if (!named) return;
  if (named instanceof HTMLDetailsElement) named.open = true;
  named.scrollIntoView();
}

function notes(api) {
  const found = ["The commands send photo.jpg: a picture of yours in the folder that you are in."];
  if (api.security)
    found.push("This server asks for a key. The commands take it from the shell: `export TENFOLD_KEY=…` first.");
  return [
    make(
      "p",
      { className: "notes" },
      found.flatMap((text, i) => (i ? [" ", ...words(text)] : words(text))),
    ),
  ];
}

const verb = (method) => make("span", { className: `verb ${method}`, textContent: method.toUpperCase() });

const link = ({ method, path, operationId }) =>
  make("a", { href: `#${operationId}` }, [verb(method), make("span", {}, broken(path))]);

function part({ name, description, own }, api) {
  return make("section", { className: "part" }, [
    make("h2", { textContent: name }),
    make("p", { className: "soft" }, words(description)),
    ...own.map((operation) => article(operation, api, verb(operation.method), name === api.tags[0].name)),
  ]);
}

// Every code, by its status.
function refusals(api) {
  const rows = Object.entries(api["x-refusals"]).map(([code, { status, when }]) =>
    make("tr", {}, [
      make("td", { textContent: status }),
      make("td", { className: "tight" }, [make("code", { textContent: code })]),
      make("td", {}, words(when)),
    ]),
  );
  by("codes").replaceChildren(...rows);
  by("refusals").hidden = false;
}

by("give").addEventListener("click", () =>
  key.another("", "Programs send it as Authorization: Bearer KEY, or as X-API-Key: KEY."),
);
by("forget").addEventListener("click", () => key.set(""));
document.addEventListener("key", begin);
addEventListener("hashchange", follow);
begin();
