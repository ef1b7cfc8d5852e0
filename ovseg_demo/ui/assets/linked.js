// Panes that show the same part of one picture, whichever of them a person zooms or drags.

import { clamp } from "./numbers.js";
import { cornerOf, panned, pixelUnder, scaleOf, WHOLE, within, zoomed } from "./geometry.js";

// `stage` holds the panes, nodes of the class "pane" and of one size, each with canvases of the size that `sizeOf()`
// returns: { width, height }, or null while there is none. `handlers` are functions: { point, tap, leave, moved }.
function linkPanes(stage, sizeOf, handlers) {
  let view = WHOLE; // as of geometry.js

  const panes = () => [...stage.querySelectorAll(".pane")];
  const sizeOfPane = (pane) => ({ width: pane.clientWidth, height: pane.clientHeight });

  function place() {
    const [first] = panes();
    const picture = sizeOf();
    if (!first?.clientWidth || !picture) return;
    view = within(view, sizeOfPane(first), picture);
    const scale = scaleOf(view, sizeOfPane(first), picture);
    for (const pane of panes()) {
      const [left, top] = cornerOf(view, sizeOfPane(pane), picture);
      for (const canvas of pane.querySelectorAll("canvas")) {
        canvas.style.transform = `translate(${left.toFixed(2)}px, ${top.toFixed(2)}px) scale(${scale.toFixed(5)})`;
        canvas.style.imageRendering = scale > 2 ? "pixelated" : "auto";
      }
    }
    stage.classList.toggle("zoomed", view.zoom > 1);
    handlers.moved(view.zoom);
  }

  // Zooms by a factor; what lies `dx`, `dy` screen pixels from the middle of a pane stays there.
  function zoomBy(factor, dx = 0, dy = 0) {
    const [first] = panes();
    if (!first || !sizeOf()) return;
    view = zoomed(view, factor, [dx, dy], sizeOfPane(first), sizeOf());
    place();
  }

  function panBy(dx, dy) {
    const [first] = panes();
    if (!first || !sizeOf()) return;
    view = panned(view, [dx, dy], sizeOfPane(first), sizeOf());
    place();
  }

  function reset() {
    view = WHOLE;
    place();
  }

  function fromMiddle(pane, { clientX, clientY }) {
    const box = pane.getBoundingClientRect();
    return [clientX - box.left - box.width / 2, clientY - box.top - box.height / 2];
  }

  // Where an event lies: its pane, the place in it, and the picture's pixel. Null outside the picture.
  function pixelAt(event) {
    const pane = event.target.closest(".pane");
    if (!pane || !sizeOf()) return null;
    const [dx, dy] = fromMiddle(pane, event);
    const pixel = pixelUnder(view, [dx, dy], sizeOfPane(pane), sizeOf());
    return pixel === null ? null : { pane, left: pane.clientWidth / 2 + dx, top: pane.clientHeight / 2 + dy, pixel };
  }

  const keys = {
    "+": () => zoomBy(1.25),
    "=": () => zoomBy(1.25),
    "-": () => zoomBy(0.8),
    0: reset,
    ArrowLeft: () => panBy(40, 0),
    ArrowRight: () => panBy(-40, 0),
    ArrowUp: () => panBy(0, 40),
    ArrowDown: () => panBy(0, -40),
  };

  stage.addEventListener("keydown", (event) => {
    if (!Object.hasOwn(keys, event.key) || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key]();
  });

  stage.addEventListener(
    "wheel",
    (event) => {
      const pane = event.target.closest(".pane");
      if (!pane || !sizeOf()) return;
      event.preventDefault();
      const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
      zoomBy(Math.exp(-clamp(event.deltaY * lines, -150, 150) / 400), ...fromMiddle(pane, event));
    },
    { passive: false },
  );

  // One pointer drags, two pinch; a press that hardly moves is a tap.
  const down = new Map(); // the latest event of each pressed pointer
  let travelled = 0;

  function pinch(event, before, other) {
    const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
    const middle = { clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 };
    zoomBy(apart(event) / apart(before), ...fromMiddle(before.target.closest(".pane"), middle));
    panBy((event.clientX - before.clientX) / 2, (event.clientY - before.clientY) / 2);
  }

  stage.addEventListener("pointerdown", (event) => {
    const pane = event.target.closest(".pane");
    if (!pane || event.button > 0) return;
    pane.setPointerCapture(event.pointerId);
    travelled = down.size ? Infinity : 0;
    down.set(event.pointerId, event);
  });

  stage.addEventListener("pointermove", (event) => {
    const before = down.get(event.pointerId);
    if (!before) return handlers.point(event);
    const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
    travelled += Math.hypot(dx, dy);
    const other = [...down.values()].find(({ pointerId }) => pointerId !== event.pointerId);
    if (other) pinch(event, before, other);
    else if (travelled > 4) {
      handlers.leave();
      panBy(dx, dy);
    }
    down.set(event.pointerId, event);
  });

  stage.addEventListener("pointerup", (event) => {
    if (down.delete(event.pointerId) && travelled <= 4) handlers.tap(event);
  });
  stage.addEventListener("pointercancel", (event) => down.delete(event.pointerId));
  stage.addEventListener("dblclick", reset);

  return { place, zoomBy, reset, pixelAt };
}
