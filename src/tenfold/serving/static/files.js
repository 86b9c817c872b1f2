// Pictures out of what is dropped, pasted and chosen: [{name, picture}].

// In folders these are taken, as `tenfold predict` takes them; a file that is named by itself is taken whatever it is.
const SUFFIXES = /\.(jpe?g|jpe|jfif|a?png|gif|bmp|dib|webp|avif|tiff?|ppm|pgm|pbm|pnm|pfm)$/i;

export const named = (files) =>
  [...files].map((file) => ({ name: file.webkitRelativePath || file.name || "pasted", picture: file }));

// Calls `take` with what is dropped and pasted on the page, `say` with why there is nothing in it; `area` shows that
// something is held over the page.
export function receive(area, take, say) {
  const given = async (transfer) => {
    const address = transfer.types.includes("text/uri-list");
    const found = await transferred(transfer);
    if (found.length) take(found);
    else if (address) say("That is the picture’s address, not the picture. Save it first, or copy and paste it.");
  };
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    area.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget ?? area.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    area.classList.remove("over");
    given(event.dataTransfer);
  });
  document.addEventListener("paste", (event) => given(event.clipboardData));
}

// Folders are gone through. The transfer is empty after the event, so all is taken from it first.
async function transferred(transfer) {
  const given = [...transfer.items].filter((item) => item.kind === "file");
  const found = given.map((item) => {
    const entry = item.webkitGetAsEntry?.();
    return entry?.isDirectory ? walked(entry) : named([item.getAsFile()].filter(Boolean));
  });
  return (await Promise.all(found)).flat();
}

async function walked(folder) {
  const reader = folder.createReader();
  const found = [];
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // some at a time
    if (!entries.length) break;
    found.push(...entries);
  }
  found.sort((a, b) => (a.name < b.name ? -1 : 1));
  const deep = await Promise.all(
    found
      .filter((entry) => !entry.name.startsWith(".") && (entry.isDirectory || SUFFIXES.test(entry.name)))
      .map(async (entry) => {
        if (entry.isDirectory) return walked(entry);
        const picture = await new Promise((resolve, reject) => entry.file(resolve, reject));
        return [{ name: entry.fullPath.slice(1), picture }];
      }),
  );
  return deep.flat();
}
