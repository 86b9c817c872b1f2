// The key that a server may ask for: given by the person in a dialog, kept until the tab is closed.

import { make } from "./make.js";

const NAME = "tenfold-key";
const AS_SENT = /^[\x21-\x7e]+$/; // what a header takes
let kept = ""; // where the browser keeps no storage
let open = null; // the promise of the dialog that is open

export function get() {
  try {
    return sessionStorage.getItem(NAME) ?? "";
  } catch {
    return kept;
  }
}

export function set(value) {
  kept = value;
  try {
    if (value) sessionStorage.setItem(NAME, value);
    else sessionStorage.removeItem(NAME);
  } catch {
    // kept for as long as the page is
  }
  document.dispatchEvent(new CustomEvent("key"));
}

// Whether there is another key now than `used`, which the server refused with `sentence`. Requests that are refused
// together wait for one dialog.
export function another(used, sentence) {
  if (get() !== used) return Promise.resolve(true);
  if (used) set("");
  open ??= asked(used ? "The server knows no such key." : "This server asks for a key.", sentence).finally(() => {
    open = null;
  });
  return open;
}

function asked(title, sentence) {
  const field = make("input", { type: "password", id: "key", autocomplete: "off", spellcheck: false, required: true });
  const wrong = make("p", { className: "small wrong", role: "alert" });
  const form = make("form", {}, [
    make("h2", { textContent: title, id: "key-title" }),
    make("p", { className: "soft small", textContent: sentence }),
    make("label", { htmlFor: "key", textContent: "Key" }),
    field,
    wrong,
    make("p", { className: "soft small", textContent: "It stays in this tab and is gone when you close it." }),
    make("div", { className: "tools" }, [
      make("button", { className: "first", textContent: "Go on" }),
      make("button", { type: "button", textContent: "Leave it", onclick: () => dialog.close() }),
    ]),
  ]);
  const dialog = make("dialog", { className: "ask", ariaLabelledBy: "key-title" }, [form]);
  document.body.append(dialog);
  return new Promise((resolve) => {
    let given = false;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const value = field.value.trim();
      if (!AS_SENT.test(value)) {
        wrong.textContent = "A key is one word of plain letters, digits and signs.";
        return;
      }
      set(value);
      given = true;
      dialog.close();
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(given);
    });
    dialog.showModal();
  });
}
