// Numbers as a person reads them.

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

export function percent(share) {
  if (share > 0 && share < 0.0005) return "<0.1 %";
  return share >= 0.0995 ? `${Math.round(100 * share)} %` : `${(100 * share).toFixed(1)} %`;
}

// All shares of one whole, rounded alike, so that they add up to 100 %.
export function percents(shares) {
  const digits = shares.some((share) => share > 0 && share < 0.0995) ? 1 : 0;
  const rounded = shares.map((share) => Number((100 * share).toFixed(digits)));
  const most = rounded.indexOf(Math.max(...rounded));
  rounded[most] += 100 - rounded.reduce((sum, value) => sum + value, 0);
  return rounded.map((value) => `${value.toFixed(digits)} %`);
}
