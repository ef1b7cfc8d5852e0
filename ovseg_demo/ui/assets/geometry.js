// Where a picture lies in the panes that show it. Panes and pictures are { width, height }, in screen pixels and in the
// picture's; a view is { zoom, x, y }: the point in the middle of every pane, in shares of the picture's size.

import { clamp } from "./numbers.js";

const MOST_ZOOM = 24;

export const WHOLE = { zoom: 1, x: 0.5, y: 0.5 };

// Screen pixels for one of the picture's; at zoom 1 the whole picture fits.
export const scaleOf = ({ zoom }, pane, picture) =>
  zoom * Math.min(pane.width / picture.width, pane.height / picture.height);

// The same view, moved so that the pane shows as little as possible of what lies beside the picture.
export function within(view, pane, picture) {
  const scale = scaleOf(view, pane, picture);
  const middle = (at, room, size) => {
    const half = room / (2 * scale * size);
    return half >= 0.5 ? 0.5 : clamp(at, half, 1 - half);
  };
  return {
    zoom: view.zoom,
    x: middle(view.x, pane.width, picture.width),
    y: middle(view.y, pane.height, picture.height),
  };
}

// Zooms by a factor; what lies `dx`, `dy` screen pixels from the middle of the pane stays there.
export function zoomed(view, factor, [dx, dy], pane, picture) {
  const zoom = clamp(view.zoom * factor, 1, MOST_ZOOM);
  const gained = 1 / scaleOf(view, pane, picture) - 1 / scaleOf({ zoom }, pane, picture);
  return { zoom, x: view.x + (dx * gained) / picture.width, y: view.y + (dy * gained) / picture.height };
}

// Drags the picture by `dx`, `dy` screen pixels.
export function panned(view, [dx, dy], pane, picture) {
  const scale = scaleOf(view, pane, picture);
  return { zoom: view.zoom, x: view.x - dx / (scale * picture.width), y: view.y - dy / (scale * picture.height) };
}

// Screen pixels from the pane's corner to the picture's.
export function cornerOf(view, pane, picture) {
  const scale = scaleOf(view, pane, picture);
  return [pane.width / 2 - view.x * scale * picture.width, pane.height / 2 - view.y * scale * picture.height];
}

// The number of the pixel that lies `dx`, `dy` screen pixels from the middle of the pane; null beside the picture.
export function pixelUnder(view, [dx, dy], pane, picture) {
  const scale = scaleOf(view, pane, picture);
  const x = Math.floor(view.x * picture.width + dx / scale);
  const y = Math.floor(view.y * picture.height + dy / scale);
  return x < 0 || y < 0 || x >= picture.width || y >= picture.height ? null : y * picture.width + x;
}

// As many columns as make `count` equal pictures largest within a stage, and their scale.
//
// `edges` are the pixels around all panels, `head` those above a picture.
export function columnsFor(count, stage, picture, edges, head) {
  const scale = (columns) => {
    const rows = Math.ceil(count / columns);
    return Math.min(
      (stage.width - edges) / columns / picture.width,
      ((stage.height - edges) / rows - head) / picture.height,
    );
  };
  const columns = [1, 2, 3, 4].slice(0, count).reduce((best, more) => (scale(more) > scale(best) ? more : best));
  return { columns, scale: scale(columns) };
}
