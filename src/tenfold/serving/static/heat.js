// A heat map drawn: numbers of a few cells to a picture that lies over another.

const SIDE = 160; // pixels that the map is drawn in; the browser does the rest
// matplotlib's inferno at six places: dark where nothing speaks for the class, bright where most does.
const COLOURS = [
  [0, 0, 4],
  [66, 10, 104],
  [147, 38, 103],
  [221, 81, 58],
  [252, 165, 10],
  [252, 255, 164],
];

// Draws `map` ({height, width, values: rows from the top, 0 to 1}) on the canvas and puts it where `box` says, in
// shares of the picture. A box may reach beyond the picture, where that was padded; the picture's frame cuts it off.
export function draw(canvas, map, box) {
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d");
  const image = context.createImageData(SIDE, SIDE);
  const rows = weights(map.height);
  const columns = weights(map.width);
  for (let y = 0, at = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++, at += 4) {
      const value = sum(map.values, rows[y], columns[x]);
      image.data.set(colour(value), at);
      image.data[at + 3] = 120 + 135 * value;
    }
  }
  context.putImageData(image, 0, 0);
  for (const side of ["left", "top", "width", "height"]) canvas.style[side] = `${100 * box[side]}%`;
}

// For each pixel of a side: the four cells about it and their weights (Catmull-Rom), so that a cell's value stands at
// its centre and what lies between two is smooth.
function weights(cells) {
  return Array.from({ length: SIDE }, (_, pixel) => {
    const place = ((pixel + 0.5) * cells) / SIDE - 0.5;
    const first = Math.floor(place);
    const t = place - first;
    const found = [((2 - t) * t - 1) * t, (3 * t - 5) * t * t + 2, ((4 - 3 * t) * t + 1) * t, (t - 1) * t * t];
    return found.map((weight, i) => [Math.min(Math.max(first - 1 + i, 0), cells - 1), weight / 2]);
  });
}

function sum(values, rows, columns) {
  let total = 0;
  for (const [row, down] of rows) for (const [column, across] of columns) total += down * across * values[row][column];
  return Math.min(Math.max(total, 0), 1);
}

function colour(value) {
  const place = value * (COLOURS.length - 1);
  const first = Math.min(Math.floor(place), COLOURS.length - 2);
  const t = place - first;
  return COLOURS[first].map((from, i) => from + t * (COLOURS[first + 1][i] - from));
}
