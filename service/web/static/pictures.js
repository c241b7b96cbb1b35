// Pictures that could not be loaded, as when the service is busy, are asked for again.
const WAITS = [500, 2000, 8000]; // milliseconds

const tries = new WeakMap();

function askAgain(image) {
  const tried = tries.get(image) ?? 0;
  const source = image.src;
  if (!source || tried === WAITS.length) return;
  tries.set(image, tried + 1);
  setTimeout(() => { if (image.src === source) image.src = source; }, WAITS[tried]);
}

document.addEventListener("error", ({ target }) => { if (target instanceof HTMLImageElement) askAgain(target); }, true);
for (const image of document.images) if (image.complete && !image.naturalWidth) askAgain(image);
