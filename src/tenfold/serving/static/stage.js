// The picture that is looked at: upright as its EXIF data say (browsers see to that), its heat map over it, or the
// camera's.

import { draw } from "./heat.js";
import { by, size, whole } from "./make.js";

const SMALL = 160; // pictures below so many pixels are shown as the squares that they are

const [figure, image, canvas, caption] = ["figure", "image", "heat", "caption"].map(by);
let address = "";
let shown = 0;

export async function show(picture, name) {
  const turn = ++shown;
  const next = URL.createObjectURL(picture);
  clear();
  image.src = address = next;
  image.alt = name;
  let seen = true;
  try {
    await image.decode();
  } catch {
    seen = false;
  }
  if (turn !== shown) return;
  by("stage").dataset.holds = seen ? "picture" : "unseen";
  const { naturalWidth: width, naturalHeight: height } = image;
  if (seen) frame(width, height);
  const pixels = seen ? `${whole(width)} × ${whole(height)} pixels` : "";
  caption.textContent = [name, pixels, size(picture.size)].filter(Boolean).join(" · ");
}

// The camera's pictures, as they come.
export function live(width, height) {
  shown++;
  clear();
  frame(width, height);
  caption.textContent = "";
  by("stage").dataset.holds = "camera";
}

export function empty() {
  shown++;
  clear();
  by("stage").dataset.holds = "nothing";
}

// The heat map over the picture; null takes it away.
export function heat(explanation) {
  canvas.hidden = explanation === null;
  if (explanation !== null) draw(canvas, explanation.map, explanation.box);
}

export function strength(share) {
  canvas.style.opacity = share;
}

function clear() {
  canvas.hidden = true;
  if (address) URL.revokeObjectURL(address);
  address = "";
  image.removeAttribute("src");
}

function frame(width, height) {
  figure.style.setProperty("--ratio", width / height);
  image.classList.toggle("squares", Math.max(width, height) < SMALL);
}
