// What the server is asked and what it refuses. No other file here calls fetch. Addresses are relative: the page may
// stand behind a proxy, under a path of its own.

import * as key from "./key.js";
import { pause } from "./make.js";

const TRIES = 8; // where the server is full and says so

// An answer that is none. `message` is the server's own sentence; `after` seconds later it may be otherwise.
export class Refused extends Error {
  constructor(message, { status = 0, code = "unreachable", id = "", after = 0 } = {}) {
    super(message);
    Object.assign(this, { status, code, id, after });
  }
}

// The response, where it is a good one. Where the server is full (503) it is asked again when it said, `tries` times in
// all; where it wants a key the person is asked for one. Throws Refused, or an AbortError of `signal`.
export async function ask(path, { body = null, signal = null, tries = TRIES } = {}) {
  for (let n = 1; ; n++) {
    const used = key.get();
    const response = await sent(path, body, signal, used);
    if (response.ok) return response;
    const refused = await understood(response);
    if (refused.code === "no_key") {
      if (!(await key.another(used, refused.message))) throw refused;
    } else if (refused.status === 503 && n < tries) {
      await pause(1000 * refused.after * (1 + Math.random() / 2)); // not all at once again
      signal?.throwIfAborted();
    } else {
      throw refused;
    }
  }
}

export async function json(path, options) {
  return (await ask(path, options)).json();
}

export const models = async () => (await json("models")).models;

export const predict = (picture, model, top, options = {}) =>
  json(`predict?${new URLSearchParams({ model, top })}`, { ...options, body: picture });

// The heat map for `name`, or for the most probable class where that is null, with the classes' probabilities.
export const explain = (picture, model, name, top, options = {}) =>
  json(`explain?${new URLSearchParams({ model, top, ...(name === null ? {} : { class: name }) })}`, {
    ...options,
    body: picture,
  });

export function headers(used = key.get()) {
  return used ? { authorization: `Bearer ${used}` } : {};
}

async function sent(path, body, signal, used) {
  try {
    const type = body ? { "content-type": "application/octet-stream" } : {};
    return await fetch(path, {
      method: body ? "POST" : "GET",
      body,
      signal,
      headers: { ...headers(used), ...type },
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("No answer came: the server is gone, or it ended the connection.");
  }
}

async function understood(response) {
  const told = { status: response.status, code: "failed", after: waiting(response) };
  try {
    const { error } = await response.json();
    return new Refused(error.message, { ...told, code: error.code, id: error.request_id });
  } catch {
    return new Refused(`The server answered ${response.status} ${response.statusText}.`, told); // a proxy's page
  }
}

// Seconds; a proxy may say a date, or more than anybody waits.
function waiting(response) {
  return Math.min(Number(response.headers.get("retry-after")) || 1, 30);
}
