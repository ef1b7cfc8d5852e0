import assert from "node:assert/strict";
import { test } from "node:test";

import { sharesByClass } from "../../../ovseg_demo/ui/assets/legend.js";

test("classes come by their share in all methods, unlabelled last, and a method without a result has none", () => {
  const legends = [
    [
      { index: 0, share: 0.25 },
      { index: 1, share: 0.5 },
    ],
    null,
    [{ index: 0, share: 1 }],
  ];
  assert.deepEqual(sharesByClass(legends), [
    [0, [0.25, null, 1]],
    [1, [0.5, null, 0]],
    [-1, [0.25, null, 0]],
  ]);
});

test("what rounding leaves is not called unlabelled", () => {
  assert.deepEqual(sharesByClass([[{ index: 3, share: 1 - 1e-7 }]]), [[3, [1 - 1e-7]]]);
});
