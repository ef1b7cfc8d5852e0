// Results as planes of the photo's size, pure: unpacked from the pixels that ui/payload.py packs, styled, compared.

export const UNLABELLED = -1;
export const UNLABELLED_TINT = [38, 40, 46];
export const OUTLINE = [255, 255, 255];

export const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

export function greyOf(photo) {
  const grey = new Uint8ClampedArray(photo.length);
  for (let at = 0; at < photo.length; at += 4) {
    grey.fill(0.3 * photo[at] + 0.6 * photo[at + 1] + 0.1 * photo[at + 2], at, at + 3);
  }
  return grey;
}

// The planes lie below each other in one picture: (label + 1, confidence), then (class, score) from best to fifth.
// Red and green hold the index, blue the score in 255ths.
export function unpack(data, width, height, depth) {
  const size = width * height;
  const planes = [];
  for (let plane = 0; plane <= depth; plane++) {
    const indices = new Int16Array(size);
    const scores = new Uint8Array(size);
    for (let i = 0, at = 4 * plane * size; i < size; i++, at += 4) {
      indices[i] = data[at] + 256 * data[at + 1];
      scores[i] = data[at + 2];
    }
    planes.push({ indices, scores });
  }
  const [first, ...top] = planes;
  const labels = first.indices.map((index) => index - 1);
  return { labels, scores: first.scores, top, edges: edgesOf(labels, width, height) };
}

function edgesOf(labels, width, height) {
  const edges = new Uint8Array(labels.length);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      edges[i] =
        (x + 1 < width && labels[i] !== labels[i + 1]) || (y + 1 < height && labels[i] !== labels[i + width]) ? 1 : 0;
    }
  }
  return edges;
}

// Labels over the photo, outlined; all but a highlighted class are dimmed and lose their outlines.
export function overlayStyle({ labels, edges }, tints, opacity, highlighted) {
  const looks = [[UNLABELLED_TINT, 0], ...tints.map((tint) => [tint, opacity]), [OUTLINE, opacity && 0.95]];
  return outlined(labels, edges, looks, (i) => labels[i] + 1, highlighted);
}

// The last look is the outlines'.
export function outlined(labels, edges, looks, lookOf, highlighted) {
  const outline = looks.length - 1;
  const dimmedAt = highlighted === null ? () => false : (i) => labels[i] !== highlighted;
  return { looks, lookOf: (i) => (edges[i] && !dimmedAt(i) ? outline : lookOf(i)), dimmedAt };
}

// Of several label planes: how many different labels each pixel has, where unlabelled counts as one, and the share of
// pixels by that number.
export function differences(planes, size) {
  const counts = new Uint8Array(size);
  const pixels = new Array(planes.length + 1).fill(0);
  for (let i = 0; i < size; i++) {
    for (let m = 0; m < planes.length; m++) {
      let first = true;
      for (let n = 0; n < m; n++) if (planes[n][i] === planes[m][i]) first = false;
      if (first) counts[i]++;
    }
    pixels[counts[i]]++;
  }
  return { counts, shares: pixels.map((number) => number / size) };
}
