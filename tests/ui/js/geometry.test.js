import assert from "node:assert/strict";
import { test } from "node:test";

import { columnsFor, cornerOf, panned, pixelUnder, scaleOf, WHOLE, within, zoomed } from "../../../ovseg_demo/ui/assets/geometry.js";

const pane = { width: 400, height: 300 };
const picture = { width: 800, height: 300 };

test("the whole picture is centred and fits its pane", () => {
  assert.equal(scaleOf(WHOLE, pane, picture), 0.5);
  assert.deepEqual(cornerOf(WHOLE, pane, picture), [0, 75]);
  assert.deepEqual(within(WHOLE, pane, picture), WHOLE);
});

test("zooming keeps the pixel under the pointer", () => {
  const pointer = [70.7, -40.3]; // inside of a pixel
  const before = pixelUnder(WHOLE, pointer, pane, picture);
  let view = WHOLE;
  for (const factor of [1.5, 3, 0.7]) {
    view = zoomed(view, factor, pointer, pane, picture);
    assert.equal(pixelUnder(view, pointer, pane, picture), before);
  }
  assert.ok(Math.abs(view.zoom - 3.15) < 1e-9);
});

test("zoom has bounds", () => {
  assert.equal(zoomed(WHOLE, 0.1, [0, 0], pane, picture).zoom, 1);
  assert.equal(zoomed(WHOLE, 1000, [0, 0], pane, picture).zoom, 24);
});

test("a dragged picture follows the pointer and does not leave its pane", () => {
  const close = { ...WHOLE, zoom: 4 };
  const [left, top] = cornerOf(close, pane, picture);
  const moved = panned(close, [30, -20], pane, picture);
  const [x, y] = cornerOf(moved, pane, picture);
  assert.ok(Math.abs(x - left - 30) < 1e-9 && Math.abs(y - top + 20) < 1e-9);
  const far = within(panned(close, [1e6, 1e6], pane, picture), pane, picture);
  assert.deepEqual(cornerOf(far, pane, picture).map(Math.round), [0, 0]);
});

test("a direction in which the whole picture shows stays centred", () => {
  assert.equal(within({ zoom: 1.5, x: 0.9, y: 0.9 }, pane, picture).y, 0.5);
});

test("pixels are numbered row by row; beside the picture there is none", () => {
  assert.equal(pixelUnder(WHOLE, [-200, -75], pane, picture), 0);
  assert.equal(pixelUnder(WHOLE, [-198, -74], pane, picture), 2 * 800 + 4);
  assert.equal(pixelUnder(WHOLE, [0, -76], pane, picture), null);
  assert.equal(pixelUnder(WHOLE, [201, 0], pane, picture), null);
});

test("wide pictures lie below each other, tall ones beside each other", () => {
  const stage = { width: 1000, height: 800 };
  assert.equal(columnsFor(2, stage, { width: 1600, height: 400 }, 20, 34).columns, 1);
  assert.equal(columnsFor(2, stage, { width: 400, height: 800 }, 20, 34).columns, 2);
  const { columns, scale } = columnsFor(4, stage, { width: 400, height: 300 }, 20, 34);
  assert.equal(columns, 2);
  assert.equal(scale, Math.min(980 / 2 / 400, (780 / 2 - 34) / 300));
});
