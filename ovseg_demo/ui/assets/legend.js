// The legend of a comparison.

import { UNLABELLED } from "./planes.js";

// The share of each class by method, [[index, shares]], the largest classes first and UNLABELLED last.
//
// `legends` has a list of { index, share } a method, or null where there is no result; so then is the share.
export function sharesByClass(legends) {
  const shares = new Map();
  const note = (number, index, share) => {
    if (!shares.has(index)) shares.set(index, legends.map((legend) => (legend ? 0 : null)));
    shares.get(index)[number] = share;
  };
  legends.forEach((legend, number) => {
    if (!legend) return;
    for (const { index, share } of legend) note(number, index, share);
    const rest = 1 - legend.reduce((sum, { share }) => sum + share, 0);
    if (rest > 1e-6) note(number, UNLABELLED, rest);
  });
  const total = ([index, of]) => (index === UNLABELLED ? -1 : of.reduce((sum, share) => sum + share, 0));
  return [...shares].sort((a, b) => total(b) - total(a));
}
