import assert from "node:assert/strict";
import { test } from "node:test";

import {
  nameOf,
  notFound,
  presenceOf,
  sharesByClass,
  unlabelledShare,
} from "../../../ovseg_demo/ui/assets/legend.js";

const FIRST = [
  { index: 0, share: 0.25 },
  { index: 1, share: 0.5 },
];

test("classes come by their share in all methods, unlabelled last, and a method without a result has none", () => {
  assert.deepEqual(sharesByClass([FIRST, null, [{ index: 0, share: 1 }]]), [
    [0, [0.25, null, 1]],
    [1, [0.5, null, 0]],
    [-1, [0.25, null, 0]],
  ]);
});

test("what rounding leaves is not called unlabelled", () => {
  assert.deepEqual(sharesByClass([[{ index: 3, share: 1 - 1e-7 }]]), [[3, [1 - 1e-7]]]);
  assert.equal(unlabelledShare([{ index: 3, share: 1 - 1e-7 }]), 0);
  assert.equal(unlabelledShare(FIRST), 0.25);
  assert.equal(unlabelledShare([]), 1);
});

test("a class is not found when no pixel of any result shows it", () => {
  assert.deepEqual(notFound(4, [FIRST]), [2, 3]);
  assert.deepEqual(notFound(4, [FIRST, [{ index: 3, share: 1 }]]), [2]);
  assert.deepEqual(notFound(2, [[]]), [0, 1]);
});

test("before there is a result, no class is called not found", () => {
  assert.deepEqual(notFound(4, []), []);
});

test("pixels without a label have a name too", () => {
  assert.equal(nameOf(["cat", "dog"], 1), "dog");
  assert.equal(nameOf(["cat", "dog"], -1), "none of the words");
});

test("a probability of presence is said of a class, where the method tells it", () => {
  assert.equal(presenceOf([0.034, 1], 0), "in the picture with a probability of 3.4 %");
  assert.equal(presenceOf([0.034, 1], -1), "");
  assert.equal(presenceOf(null, 0), "");
});
