// The page: a picture comes in, its answer comes out. What each part does is in the files beside this one.

import * as asking from "./asking.js";
import * as bars from "./bars.js";
import * as camera from "./camera.js";
import * as card from "./card.js";
import * as files from "./files.js";
import * as key from "./key.js";
import { by, count, make, ms, pause, percent } from "./make.js";
import * as many from "./many.js";
import * as stage from "./stage.js";

const TOP = 5; // classes that are shown
const LANES = 4; // requests at once; the server has a queue, and others wait in it too
const EVERY = 250; // milliseconds between two live frames at least

let models = [];
let model = null; // the one that is asked
let items = []; // {name, picture, row} and answer or refused, when they are there
let current = null;
let waiting = []; // items to be asked for
let busy = 0;
let round = new AbortController(); // of all requests for items
let heat = null; // the class that the heat map is for; "" is the most probable one; null is no heat map
let shots = 0;

// ---- models ---------------------------------------------------------------------------------------------------------

async function begin() {
  try {
    models = await asking.models();
  } catch (error) {
    by("trouble").replaceChildren(error.message, " ", make("button", { textContent: "Try again", onclick: begin }));
    by("trouble").hidden = false;
    return;
  }
  by("trouble").hidden = true;
  const asked = new URLSearchParams(location.search).get("model");
  const first = models.find((own) => own.name === asked) ?? models.find((own) => own.default) ?? models[0];
  by("model").replaceChildren(...models.map((own) => make("option", { textContent: own.name, value: own.name })));
  by("chooser").hidden = models.length < 2;
  by("about").disabled = false;
  take(first);
}

function take(next) {
  model = next;
  by("model").value = model.name;
  document.title = `${model.name} · tenfold`;
  by("title").textContent = model.name;
  by("lead").textContent = [count(model.classes.length, "class", "classes"), card.accuracy(model)]
    .filter(Boolean)
    .join(" · ");
  by("knows").replaceChildren(make("h2", { textContent: "What it knows" }), card.chips(model.classes));
  by("look").hidden = !model.explains;
  heat = null;
  bars.clear();
  for (const item of items) {
    item.answer = item.refused = item.maps = null;
    many.update(item);
  }
  restart();
  enqueue(items);
  if (current) show(current);
}

// The server has taken up another version of the model.
async function renew() {
  models = await asking.models();
  model = models.find((own) => own.name === model.name) ?? model;
}

// ---- pictures -------------------------------------------------------------------------------------------------------

function add(found) {
  if (!found.length || !model) return;
  closeCamera();
  for (const item of found) {
    many.add(item, show);
    items.push(item);
    many.thumbnail(item);
  }
  show(found[0]);
  enqueue(found);
}

function enqueue(found) {
  waiting.push(...found);
  many.summarize(items);
  while (busy < LANES && waiting.length) lane();
}

async function lane() {
  busy++;
  while (waiting.length) {
    const item = waiting.includes(current) ? waiting.splice(waiting.indexOf(current), 1)[0] : waiting.shift();
    await ask(item, round.signal);
    many.summarize(items);
  }
  busy--;
}

async function ask(item, signal) {
  const began = performance.now();
  const [asked, own] = [model, round];
  item.answer = item.refused = null;
  try {
    const value = await asking.predict(item.picture, asked.name, TOP, { signal });
    if (own !== round) return;
    Object.assign(item, told(value.predictions[0], value, performance.now() - began));
    if (value.version !== asked.version) renew();
  } catch (error) {
    if (own !== round) return; // another model is asked now, or all was cleared
    item.refused = refusal(error);
  }
  if (own !== round) return;
  many.update(item);
  if (item === current) tell(item);
}

const told = (answer, value, time) => ({ answer, ms: value.ms, time, threshold: value.threshold });

const refusal = (error) =>
  error.name === "AbortError" ? new asking.Refused("Stopped before it was asked for.") : error;

// All requests for items end; what they bring is not wanted any more.
function restart() {
  round.abort();
  round = new AbortController();
  waiting = [];
}

function halt() {
  const left = items.filter((item) => !item.answer && !item.refused);
  restart();
  for (const item of left) {
    item.refused = new asking.Refused("Stopped before it was asked for.");
    many.update(item);
  }
  many.summarize(items);
  if (current) tell(current);
}

function again() {
  const failed = items.filter((item) => item.refused && many.again(item.refused));
  for (const item of failed) {
    item.refused = null;
    many.update(item);
  }
  enqueue(failed);
  if (current) tell(current);
}

function clear() {
  restart();
  items = [];
  current = null;
  many.clear();
  closeCamera();
  stage.empty();
  nothing();
}

// No picture, no answer.
function nothing() {
  bars.clear();
  by("result").hidden = by("refused").hidden = true;
  by("knows").hidden = false;
}

// ---- the answer -----------------------------------------------------------------------------------------------------

function show(item) {
  closeCamera();
  current = item;
  if (heat) heat = ""; // its own most probable class
  many.mark(items, item);
  stage.show(item.picture, item.name);
  tell(item);
}

// Shows the item's answer, or what there is in its place.
function tell(item) {
  by("answer").setAttribute("aria-busy", !item.answer && !item.refused);
  by("refused").hidden = !item.refused;
  if (item.refused) {
    stage.heat(null);
    by("result").hidden = by("knows").hidden = true;
    const { message, code, id } = item.refused;
    const trace = make("div", { className: "soft small", textContent: id ? `${code} · request ${id}` : code });
    by("refused").replaceChildren(make("div", { textContent: message }), trace);
    if (many.again(item.refused))
      by("refused").append(make("button", { type: "button", textContent: "Try again", onclick: again }));
  } else if (item.answer) {
    speak(item.answer, item.threshold);
    const { decode, wait, compute } = item.ms;
    by("time").textContent = `${ms(item.time)}, of it ${ms(item.ms.total)} in the server`;
    by("time").title = `Reading the picture ${ms(decode)}, waiting ${ms(wait)}, computing ${ms(compute)}`;
    if (heat !== null) look(item);
  }
}

function speak(answer, threshold) {
  const [best] = answer.top;
  by("answer").setAttribute("aria-busy", false);
  by("result").hidden = false;
  by("knows").hidden = true;
  by("result").classList.toggle("unknown", answer.unknown);
  by("class").textContent = answer.class;
  by("probability").textContent = answer.unknown ? "" : percent(answer.probability);
  by("why").hidden = !answer.unknown;
  if (answer.unknown)
    by("why").textContent =
      `Most probable is ${best.class} with ${percent(best.probability)}, below the model’s threshold of ` +
      `${percent(threshold)}: perhaps it shows something else.`;
  bars.show(answer.top, threshold, model.explains ? pick : null);
  bars.mark(heat === null ? null : heat || best.class);
}

// ---- the heat map ---------------------------------------------------------------------------------------------------

function pick(name) {
  const [best] = current?.answer?.top ?? [];
  heat = heat !== null && (heat || best?.class) === name ? null : name;
  bars.mark(heat);
  look(current);
}

// Draws the heat map of `heat` over the item's picture, asked for once. For another picture the class may be another.
async function look(item) {
  by("heat-on").checked = heat !== null;
  if (heat !== null && camera.on()) return; // with the next frame
  if (heat === null || !item?.answer) {
    stage.heat(null);
    by("looked").textContent = "Choose a class to see what in the picture speaks for it.";
    return;
  }
  const [name, asked, own] = [heat || item.answer.top[0].class, heat, round];
  item.maps ??= {};
  try {
    item.maps[name] ??= (await asking.explain(item.picture, model.name, name, TOP, { signal: own.signal })).explanation;
  } catch (error) {
    if (own === round && item === current) by("looked").textContent = error.message;
    return;
  }
  if (own !== round || item !== current || asked !== heat) return;
  overlay(item.maps[name], name);
}

function overlay(explanation, name) {
  const nothing = explanation.map.values.every((row) => row.every((value) => value <= 0));
  stage.heat(explanation);
  const [what, bright] = [`Nothing in the picture speaks for ${name}.`, `Bright is what speaks most for ${name}.`];
  by("looked").textContent = nothing ? what : bright;
  bars.mark(name);
}

// ---- the camera -----------------------------------------------------------------------------------------------------

async function openCamera() {
  if (!camera.there()) {
    by("shot").click();
    return;
  }
  let sizes;
  try {
    sizes = await camera.start(closeCamera);
  } catch (error) {
    say(error.message);
    return;
  }
  current = null;
  if (heat) heat = "";
  many.mark(items, null);
  by("refused").hidden = true;
  stage.live(...sizes);
  if (document.hidden) return closeCamera();
  buttons(true);
  by("said").setAttribute("aria-live", "off"); // nobody wants to hear each frame
  watch();
}

function closeCamera() {
  if (!camera.on()) return;
  camera.stop();
  buttons(false);
  by("said").setAttribute("aria-live", "polite");
  stage.empty();
  nothing();
}

function buttons(on) {
  for (const id of ["take", "stop", "live-switch"]) by(id).hidden = !on;
  for (const id of ["choose", "camera"]) by(id).hidden = on;
  by(on ? "take" : "camera").focus();
}

async function photograph() {
  const picture = await camera.frame();
  if (picture) add([{ name: `photo-${++shots}.jpg`, picture }]);
}

// Live: a frame, its answer, a while of nothing.
async function watch() {
  while (camera.on()) {
    const began = performance.now();
    let rest = EVERY;
    if (by("live").checked) {
      try {
        await frame(began);
      } catch (error) {
        if (!camera.on()) return;
        say(error.message);
        rest = 1000 * (error.after || 1);
      }
    }
    await pause(Math.max(rest - (performance.now() - began), 20));
  }
}

async function frame(began) {
  const picture = await camera.frame();
  if (!picture) return;
  const [own, name] = [model, heat || null];
  const explained = heat !== null;
  const value = explained
    ? await asking.explain(picture, own.name, name, TOP, { tries: 1 })
    : await asking.predict(picture, own.name, TOP, { tries: 1 });
  if (!camera.on() || own !== model) return;
  const answer = explained ? value.explanation : value.predictions[0];
  by("refused").hidden = true;
  speak(answer, own.threshold);
  const time = performance.now() - began;
  by("time").textContent = `${ms(time)} a frame, of it ${ms(value.ms.total)} in the server`;
  if (explained && heat !== null) overlay(answer, name ?? answer.top[0].class);
  else stage.heat(null);
}

// ---- what the person does -------------------------------------------------------------------------------------------

function on(id, event, act) {
  by(id).addEventListener(event, act);
}

on("choose", "click", () => by("files").click());
on("invite", "click", () => by("files").click()); // a wide target for mice; the button is for all
for (const id of ["files", "shot"])
  on(id, "change", () => {
    add(files.named(by(id).files));
    by(id).value = ""; // the same file may be chosen again
  });
on("camera", "click", openCamera);
on("take", "click", photograph);
on("stop", "click", closeCamera);
on("live", "change", () => (by("lamp").hidden = !by("live").checked));
on("model", "change", () => take(models.find((own) => own.name === by("model").value)));
on("about", "click", () => {
  card.fill(model);
  by("card").showModal();
});
on("close", "click", () => by("card").close());
on("card", "click", (event) => event.target === by("card") && by("card").close()); // beside it
on("heat-on", "change", () => {
  heat = by("heat-on").checked ? "" : null;
  const [best] = current?.answer?.top ?? [];
  bars.mark(heat === null ? null : (best?.class ?? null));
  look(current);
});
on("strength", "input", () => stage.strength(by("strength").value));
on("csv", "click", () => many.save(items, `tenfold-${model.name}.csv`, Math.min(3, model.classes.length)));
on("clear", "click", clear);
on("halt", "click", halt);
on("again", "click", again);
on("forget", "click", () => {
  key.set("");
  location.reload();
});

function say(message) {
  by("refused").textContent = message;
  by("refused").hidden = false;
}

files.receive(by("stage"), add, say);
document.addEventListener("visibilitychange", () => document.hidden && closeCamera());
document.addEventListener("key", () => (by("forget").hidden = !key.get()));

by("forget").hidden = !key.get();
by("camera").hidden = !camera.there() && !matchMedia("(pointer: coarse)").matches;
by("no-camera").hidden = camera.there();
stage.strength(by("strength").value);
begin();
