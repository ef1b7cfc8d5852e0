import assert from "node:assert/strict";
import { test } from "node:test";

import { differences, greyOf, outlined, overlayStyle, rgb, unpack } from "../../../ovseg_demo/ui/assets/planes.js";

// RGBA bytes of planes of (index, score) pairs, as ui/payload.py packs them.
const packed = (...pairs) => Uint8ClampedArray.from(pairs.flatMap(([index, score]) => [index % 256, index >> 8, score, 255]));

test("planes are unpacked: labels count from -1, indices beyond 255 use two bytes", () => {
  const data = packed([0, 0], [301, 200], [0, 9], [300, 250]); // two pixels; labels, then the best class
  const { labels, scores, top, edges } = unpack(data, 2, 1, 1);
  assert.deepEqual([...labels], [-1, 300]);
  assert.deepEqual([...scores], [0, 200]);
  assert.equal(top.length, 1);
  assert.deepEqual([...top[0].indices], [0, 300]);
  assert.deepEqual([...top[0].scores], [9, 250]);
  assert.deepEqual([...edges], [1, 0]);
});

test("a pixel is an edge where its right or lower neighbour has another label", () => {
  const data = packed([1, 0], [1, 0], [2, 0], [1, 0], [1, 0], [1, 0]); // 3 x 2: a a b / a a a
  assert.deepEqual([...unpack(data, 3, 2, 0).edges], [0, 1, 1, 0, 0, 0]);
});

test("the overlay tints classes, outlines them, and dims all but the highlighted one", () => {
  const layer = { labels: Int16Array.of(-1, 0, 1), edges: Uint8Array.of(0, 0, 1) };
  const plain = overlayStyle(layer, [[1, 2, 3], [4, 5, 6]], 0.5, null);
  assert.deepEqual(plain.looks[1], [[1, 2, 3], 0.5]);
  assert.deepEqual([0, 1, 2].map(plain.lookOf), [0, 1, 3]); // the last is the outline
  assert.ok(![0, 1, 2].some(plain.dimmedAt));
  const highlighted = overlayStyle(layer, [[1, 2, 3], [4, 5, 6]], 0.5, 0);
  assert.deepEqual([0, 1, 2].map(highlighted.dimmedAt), [true, false, true]);
  assert.equal(highlighted.lookOf(2), 2); // a dimmed class has no outline
});

test("without opacity nothing is outlined", () => {
  const { looks } = overlayStyle({ labels: Int16Array.of(0), edges: Uint8Array.of(1) }, [[1, 2, 3]], 0, null);
  assert.equal(looks.at(-1)[1], 0);
});

test("outlines take the last look", () => {
  const { lookOf } = outlined(Int16Array.of(0, 0), Uint8Array.of(1, 0), ["a", "b", "c"], () => 1, null);
  assert.deepEqual([lookOf(0), lookOf(1)], [2, 1]);
});

test("different labels are counted a pixel; unlabelled counts as one", () => {
  const { counts, shares } = differences([Int16Array.of(0, 0, -1, 2), Int16Array.of(0, 1, 0, 2), Int16Array.of(0, 2, 0, 2)], 4);
  assert.deepEqual([...counts], [1, 3, 2, 1]);
  assert.deepEqual(shares, [0, 0.5, 0.25, 0.25]);
});

test("colours and greys", () => {
  assert.deepEqual(rgb("#ff8001"), [255, 128, 1]);
  assert.deepEqual([...greyOf(Uint8ClampedArray.of(100, 50, 10, 255))], [61, 61, 61, 0]);
});
