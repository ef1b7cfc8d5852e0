// What a legend says of one result, or of the results of a comparison. A legend is a list of { index, share }.

import { percent } from "./numbers.js";
import { UNLABELLED } from "./planes.js";

export const nameOf = (names, index) => (index === UNLABELLED ? "none of the words" : names[index]);

// The share of pixels without a label; 0 where nothing but rounding is left.
export function unlabelledShare(legend) {
  const rest = 1 - legend.reduce((sum, { share }) => sum + share, 0);
  return rest > 1e-6 ? rest : 0;
}

// The share of each class by method, [[index, shares]], the largest classes first and UNLABELLED last.
//
// `legends` has the legend of each method, or null where there is no result; so then is the share.
export function sharesByClass(legends) {
  const shares = new Map();
  const note = (number, index, share) => {
    if (!shares.has(index)) shares.set(index, legends.map((legend) => (legend ? 0 : null)));
    shares.get(index)[number] = share;
  };
  legends.forEach((legend, number) => {
    if (!legend) return;
    for (const { index, share } of legend) note(number, index, share);
    const rest = unlabelledShare(legend);
    if (rest) note(number, UNLABELLED, rest);
  });
  const total = ([index, of]) => (index === UNLABELLED ? -1 : of.reduce((sum, share) => sum + share, 0));
  return [...shares].sort((a, b) => total(b) - total(a));
}

// The classes, of `count`, that no pixel of any result shows. Where there is no result yet, none is called so.
export function notFound(count, legends) {
  if (!legends.length) return [];
  const found = new Set(legends.flatMap((legend) => legend.map(({ index }) => index)));
  return Array.from({ length: count }, (_, index) => index).filter((index) => !found.has(index));
}

// How likely a class is in the picture at all; "" where the method does not tell: `presence` is null then.
export const presenceOf = (presence, index) =>
  presence && index !== UNLABELLED ? `in the picture with a probability of ${percent(presence[index])}` : "";
