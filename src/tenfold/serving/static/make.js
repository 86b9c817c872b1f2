// Elements. Text goes in as text, never as HTML: names of classes and files come from strangers.

// An element with these properties; `role`, `data…` and those that begin with `aria` are set as attributes.
export function make(tag, properties = {}, children = []) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria")) element.setAttribute(`aria-${name.slice(4).toLowerCase()}`, value);
    else if (name === "role" || name.startsWith("data-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

export const by = (id) => document.getElementById(id);

const SPACE = "\u00a0"; // between a number and its unit, where no line breaks

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}${SPACE}%`;

export const whole = (number) => number.toLocaleString("en");

export const count = (number, word, words = `${word}s`) => `${whole(number)} ${number === 1 ? word : words}`;

export function size(bytes) {
  if (bytes < 1000) return `${bytes}${SPACE}B`;
  const [value, unit] = bytes < 999_500 ? [bytes / 1e3, "kB"] : [bytes / 1e6, "MB"];
  return `${value >= 99.5 ? Math.round(value) : value.toPrecision(2)}${SPACE}${unit}`;
}

export const ms = (value) => `${value < 9.95 ? value.toFixed(1) : Math.round(value)}${SPACE}ms`;

export const pause = (time) => new Promise((resolve) => setTimeout(resolve, time));
