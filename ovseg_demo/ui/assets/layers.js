// Results as planes of the photo's size: decoded from the pictures that ui/payload.py packs, and drawn.

import { unpack } from "./planes.js";

async function pixelsOf(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = make("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

const decodeLayer = async (sent, width, height) => unpack((await pixelsOf(sent.planes)).data, width, height, sent.depth);

// Fills a canvas with the photo, each pixel under one of `looks`, pairs of a tint and its opacity. `lookOf(i)` numbers
// the look of pixel i; where `dimmedAt(i)` is true the pixel is darkened.
function drawPixels(canvas, { width, height, photo }, { looks, lookOf, dimmedAt }) {
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  // What a look makes of a photo's value: gain * value + base. The dimmed looks follow the others.
  const gain = new Float32Array(2 * looks.length);
  const base = new Float32Array(6 * looks.length);
  looks.forEach(([tint, opacity], number) => {
    for (const [at, light, dark] of [[number, 1, 0], [number + looks.length, 0.35, 20]]) {
      gain[at] = light * (1 - opacity);
      for (let c = 0; c < 3; c++) base[3 * at + c] = light * opacity * tint[c] + dark;
    }
  });
  const context = canvas.getContext("2d");
  const drawn = context.createImageData(width, height);
  const out = drawn.data;
  for (let i = 0, at = 0; i < width * height; i++, at += 4) {
    const look = dimmedAt(i) ? lookOf(i) + looks.length : lookOf(i);
    out[at] = gain[look] * photo[at] + base[3 * look];
    out[at + 1] = gain[look] * photo[at + 1] + base[3 * look + 1];
    out[at + 2] = gain[look] * photo[at + 2] + base[3 * look + 2];
    out[at + 3] = 255;
  }
  context.putImageData(drawn, 0, 0);
}
