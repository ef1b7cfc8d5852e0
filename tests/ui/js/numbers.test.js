import assert from "node:assert/strict";
import { test } from "node:test";

import { clamp, percent, percents } from "../../../ovseg_demo/ui/assets/numbers.js";

test("a share has a digit only below a tenth, and is never rounded to nothing", () => {
  assert.equal(percent(0), "0.0 %");
  assert.equal(percent(0.0004), "<0.1 %");
  assert.equal(percent(0.012), "1.2 %");
  assert.equal(percent(0.0994), "9.9 %");
  assert.equal(percent(0.0996), "10 %");
  assert.equal(percent(1), "100 %");
});

test("shares of one whole add up to 100 %", () => {
  assert.deepEqual(percents([1 / 3, 1 / 3, 1 / 3]), ["34 %", "33 %", "33 %"]);
  assert.deepEqual(percents([0.985, 0.015]), ["98.5 %", "1.5 %"]);
  assert.deepEqual(percents([1, 0]), ["100 %", "0 %"]);
});

test("clamp", () => {
  assert.deepEqual([-1, 0.5, 2].map((value) => clamp(value, 0, 1)), [0, 0.5, 1]);
});
