// The comparison of two to four methods. Runs once inside gr.HTML, as viewer.js does. Python sends the whole comparison
// again whenever a method gets on; zoom, swipe, highlights and differences are made here from the per-pixel planes.

import { columnsFor } from "./geometry.js";
import { nameOf, notFound, presenceOf, sharesByClass } from "./legend.js";
import { clamp, percent, percents } from "./numbers.js";
import { differences, greyOf, overlayStyle, rgb, UNLABELLED, UNLABELLED_TINT } from "./planes.js";

const BADGES = "ABCD";
const [EDGES, PANEL_HEAD] = [20, 34]; // pixels around all panels and above a picture, as in style.css
const DIFFER_TINTS = [null, null, [255, 176, 0], [254, 97, 0], [220, 38, 127]]; // by the number of different labels
const HINT =
  "Point at a picture, or tap it, to see what each method says there. Wheel, pinch and drag move all pictures; a double click resets them.";

const view = { kind: "side", opacity: 0.55, highlighted: null, pinned: false, split: 0.5 };
const pair = { left: 0, right: 1 }; // panel numbers
let picture = null; // { run, width, height, photo and grey: RGBA bytes, names, colours, tints }
let panels = []; // { sent, layer, canvas, head, message }, one a method; layer is null until its result has come
let differing = null; // { counts: different labels by pixel, shares: of pixels by number of labels }
let decoding = null; // { run, photo, layers: by id }, promises, so that every value of a run shares them
let newest = 0; // ticket of the latest value

const choosers = ["left", "right"].map((side) => {
  const select = make("select");
  select.dataset.side = side;
  select.setAttribute("aria-label", `Method on the ${side}`);
  return select;
});
const chooser = make("div", "pair");
const swapper = make("button", "", "⇆");
swapper.type = "button";
swapper.title = "Swap left and right";
swapper.setAttribute("aria-label", swapper.title);
chooser.append(choosers[0], swapper, choosers[1]);

const done = () => panels.filter((panel) => panel.layer);

// Values ------------------------------------------------------------------------------------------------------------

async function show(sent) {
  if (!sent || sent.run < (picture?.run ?? 0)) return; // what an older comparison says at its end
  const ticket = ++newest;
  if (decoding?.run !== sent.run) decoding = { run: sent.run, photo: pixelsOf(sent.photo), layers: new Map() };
  const { photo, layers } = decoding;
  const decodedOf = (layer) => {
    if (!layers.has(layer.id)) layers.set(layer.id, decodeLayer(layer, sent.width, sent.height));
    return layers.get(layer.id);
  };
  const [{ data }, ...decoded] = await Promise.all([photo, ...sent.panels.map(({ layer }) => layer && decodedOf(layer))]);
  if (ticket !== newest) return; // a newer value arrived while this one was decoded
  const fresh = picture?.run !== sent.run;
  if (fresh) begin(sent, data);
  const came = panels.filter((panel, i) => !panel.layer && decoded[i]);
  for (const [i, panel] of panels.entries()) Object.assign(panel, { sent: sent.panels[i], layer: decoded[i] });
  panels.forEach(tell);
  if (fresh || came.length) update();
  if (fresh) reveal();
  find(".compare").dataset.run = sent.run;
  find(".compare").dataset.done = done().length;
}

function begin(sent, photo) {
  picture = { ...sent, photo, grey: greyOf(photo), tints: sent.colours.map(rgb) };
  panels = sent.panels.map((panel) => {
    const head = make("div", "panel-head");
    return { sent: panel, layer: null, canvas: make("canvas"), head, message: make("p", "panel-message") };
  });
  Object.assign(pair, { left: 0, right: 1 });
  view.split = 0.5;
  linked.reset();
  hideCard();
  find(".compare").classList.add("has-result");
}

function update() {
  view.highlighted = null; // the legend row under the pointer goes without telling
  const labels = done().map((panel) => panel.layer.labels);
  differing = differences(labels, picture.width * picture.height);
  fillPair();
  fillLegend();
  fillDifferences();
  arrange();
}

function tell(panel, number) {
  const { title, state, line, detail } = panel.sent;
  const badge = make("b", "badge", BADGES[number]);
  const name = make("span", "panel-title", title);
  name.title = title;
  const summary = make("span", "panel-line", state === "done" ? line : "");
  summary.title = detail;
  panel.head.replaceChildren(badge, name, summary);
  panel.message.textContent = state === "done" ? "" : line;
  panel.message.dataset.state = state;
}

// Pictures ----------------------------------------------------------------------------------------------------------

const WAITING = { looks: [[UNLABELLED_TINT, 0]], lookOf: () => 0, dimmedAt: () => true };

function paint() {
  if (!picture) return;
  for (const { canvas, layer } of panels) {
    if (!canvas.isConnected) continue;
    drawPixels(canvas, picture, layer ? overlayStyle(layer, picture.tints, view.opacity, view.highlighted) : WAITING);
  }
  const map = find(".differ-map");
  if (map) drawPixels(map, { ...picture, photo: picture.grey }, differStyle());
}

// Colour says how many labels there are; where all agree the grey photo shows.
function differStyle() {
  const labels = done().map((panel) => panel.layer.labels);
  const { highlighted, opacity } = view;
  return {
    looks: DIFFER_TINTS.map((tint) => (tint ? [tint, 0.3 + 0.7 * opacity] : [UNLABELLED_TINT, 0])),
    lookOf: (i) => differing.counts[i],
    dimmedAt: (i) => highlighted !== null && !labels.some((plane) => plane[i] === highlighted),
  };
}

let drawing = 0;
function paintSoon() {
  cancelAnimationFrame(drawing);
  drawing = requestAnimationFrame(paint);
}

function figure(head, ...inside) {
  const node = make("figure", "panel");
  const pane = make("div", "pane");
  pane.append(...inside, make("i", "cursor"));
  node.append(head, pane);
  return node;
}

const VIEWS = {
  side: () => panels.map(({ head, canvas, message }) => figure(head, canvas, message)),
  swipe: () => {
    const [left, right] = [panels[pair.left], panels[pair.right]];
    const clip = make("div", "clip");
    clip.append(left.canvas);
    return [figure(chooser, right.canvas, clip, divider())];
  },
  differ: () => {
    const head = make("div", "panel-head");
    const names = done().map(({ sent }) => sent.title);
    head.append(make("span", "panel-title", `Where ${new Intl.ListFormat("en-GB").format(names)} differ`));
    return [figure(head, make("canvas", "differ-map"))];
  },
};

function arrange() {
  if (!picture) return;
  const enough = view.kind === "side" || done().length > 1;
  const few = make("p", "panel-message", "Two results are needed for this view.");
  find(".panels").replaceChildren(...(enough ? VIEWS[view.kind]() : [few]));
  fit();
  paint();
}

function fit() {
  const { clientWidth: width, clientHeight: height } = find(".compare-stage");
  if (!picture || !width) return;
  const count = find(".panels").childElementCount;
  const { columns, scale } = columnsFor(count, { width, height }, picture, EDGES, PANEL_HEAD);
  const { style } = find(".panels");
  style.setProperty("--columns", columns);
  style.setProperty("--height", `${Math.floor(scale * picture.height)}px`);
  style.setProperty("--aspect", `${picture.width} / ${picture.height}`);
  linked.place();
}

// Swipe -------------------------------------------------------------------------------------------------------------

function divider() {
  const node = make("div", "swipe-divider");
  node.tabIndex = 0;
  node.setAttribute("role", "slider");
  node.setAttribute("aria-label", "Divider between the two methods");
  node.setAttribute("aria-valuemin", 0);
  node.setAttribute("aria-valuemax", 100);
  const move = (split) => {
    view.split = clamp(split, 0, 1);
    node.setAttribute("aria-valuenow", Math.round(100 * view.split));
    find(".panels").style.setProperty("--split", `${100 * view.split}%`);
  };
  node.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 0.1 : 0.02;
    const to = { ArrowLeft: view.split - step, ArrowRight: view.split + step, Home: 0, End: 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation(); // arrow keys pan elsewhere
    move(to);
  });
  node.addEventListener("pointerdown", (event) => {
    event.stopPropagation();
    node.setPointerCapture(event.pointerId);
  });
  node.addEventListener("pointermove", (event) => {
    event.stopPropagation();
    if (!node.hasPointerCapture(event.pointerId)) return;
    hideCard();
    const box = node.parentElement.getBoundingClientRect();
    move((event.clientX - box.left) / box.width);
  });
  node.addEventListener("dblclick", (event) => {
    event.stopPropagation();
    move(0.5);
  });
  move(view.split);
  return node;
}

// The methods that have a result, left and right; choosing the other side's exchanges them.
function fillPair() {
  const numbers = panels.flatMap((panel, i) => (panel.layer ? [i] : []));
  if (!numbers.includes(pair.left)) pair.left = numbers.find((i) => i !== pair.right);
  if (!numbers.includes(pair.right)) pair.right = numbers.find((i) => i !== pair.left);
  for (const select of choosers) {
    const options = numbers.map((i) => {
      const option = make("option", "", `${BADGES[i]} ${panels[i].sent.title}`);
      option.value = i;
      return option;
    });
    select.replaceChildren(...options);
    select.value = pair[select.dataset.side];
  }
}

function choosePair(select) {
  const side = select.dataset.side;
  const other = side === "left" ? "right" : "left";
  if (Number(select.value) === pair[other]) pair[other] = pair[side];
  pair[side] = Number(select.value);
  fillPair();
  arrange();
}

function swap() {
  Object.assign(pair, { left: pair.right, right: pair.left });
  fillPair();
  arrange();
}

// Legend ------------------------------------------------------------------------------------------------------------

function highlight(index) {
  view.highlighted = index;
  paintSoon();
}

function fillLegend() {
  const head = make("tr");
  head.append(make("th", "", "Legend"));
  panels.forEach(({ sent }, i) => {
    const cell = make("th");
    cell.title = sent.title;
    cell.append(make("b", "badge", BADGES[i]));
    head.append(cell);
  });
  find("thead").replaceChildren(head);
  const rows = sharesByClass(panels.map(({ layer, sent }) => layer && sent.layer.legend));
  find("tbody").replaceChildren(...rows.map(([index, shares]) => legendRow(index, shares)));
  const legends = done().map(({ sent }) => sent.layer.legend);
  const absent = notFound(picture.names.length, legends);
  find(".legend-absent").replaceChildren(notFoundRows(absent, picture, titleOf));
  const notes = new Set();
  for (const [i, { sent }] of panels.entries()) {
    for (const [option, reason] of sent.reasons) notes.add(`${option} of ${BADGES[i]}: ${reason}`);
  }
  for (const note of done().flatMap(({ sent }) => sent.layer.notes)) notes.add(note);
  notes.add(HINT);
  find(".compare-notes").replaceChildren(...[...notes].map((note) => make("p", "", note)));
}

function legendRow(index, shares) {
  const row = make("tr", index === UNLABELLED ? "compare-row unlabelled" : "compare-row");
  const name = make("th");
  name.scope = "row";
  row.title = titleOf(index);
  const inner = make("span", "compare-name");
  inner.append(swatch(picture.colours[index]), make("span", "compare-word", nameOf(picture.names, index)));
  name.append(inner);
  row.append(name);
  for (const share of shares) {
    const cell = make("td", "", share === null ? "" : share ? percent(share) : "–");
    if (share) cell.append(bar("legend-bar", share, picture.colours[index] ?? "var(--body-text-color-subdued)"));
    row.append(cell);
  }
  highlights(row, index, highlight);
  return row;
}

// The word, and what each method that tells it says of its presence.
function titleOf(index) {
  const presences = panels.map(({ sent }, i) => [BADGES[i], presenceOf(sent.layer?.presence, index)]);
  const told = presences.filter(([, presence]) => presence).map(([badge, presence]) => `${badge}: ${presence}`);
  return [nameOf(picture.names, index), ...told].join("\n");
}

function fillDifferences() {
  const share = find(".differ-share");
  share.replaceChildren();
  find(".differ-key").replaceChildren();
  const count = done().length;
  if (count < 2) return;
  const different = 1 - differing.shares[1];
  share.dataset.share = different;
  share.append(make("strong", "", percent(different)), " of the pixels get different labels");
  const key = [[1, "agree"]];
  if (count === 2) key.push([2, "disagree"]);
  else for (let labels = 2; labels <= count; labels++) key.push([labels, `${labels} labels`]);
  const shares = percents(key.map(([labels]) => differing.shares[labels]));
  const items = key.map(([labels, word], i) => {
    const item = make("li");
    item.append(swatch(labels > 1 ? `rgb(${DIFFER_TINTS[labels]})` : "#9a9a9a"), `${word} ${shares[i]}`);
    return item;
  });
  find(".differ-key").replaceChildren(...items);
}

// Card --------------------------------------------------------------------------------------------------------------

function hideCard() {
  view.pinned = false;
  find(".card").hidden = true;
  for (const cursor of findAll(".cursor")) cursor.style.display = "none";
}

// What every method says of the pixel under the pointer, and the same place marked in every picture.
function probe(event) {
  const place = done().length ? linked.pixelAt(event) : null;
  if (!place) return hideCard();
  const count = differing.counts[place.pixel];
  const title = done().length < 2 ? "" : count > 1 ? `${count} different labels` : "All agree";
  const card = find(".card");
  card.replaceChildren(make("div", "probe-title", title));
  panels.forEach(({ layer }, number) => {
    if (!layer) return;
    const row = make("div", "card-row");
    const label = layer.labels[place.pixel];
    row.append(make("b", "badge", BADGES[number]), swatch(picture.colours[label]));
    row.append(make("span", "probe-name", nameOf(picture.names, label)));
    row.append(make("span", "probe-score", label === UNLABELLED ? "" : percent(layer.scores[place.pixel] / 255)));
    card.append(row);
  });
  card.hidden = false;
  placeCard(card, event, find(".compare-stage"));
  for (const cursor of findAll(".cursor")) {
    cursor.style.display = cursor.parentElement === place.pane && event.pointerType === "mouse" ? "none" : "block";
    cursor.style.left = `${place.left}px`;
    cursor.style.top = `${place.top}px`;
  }
}

// Wiring ------------------------------------------------------------------------------------------------------------

const tabs = findAll("[role=tab]");
const mark = tabbed(tabs, choose);

function choose(tab) {
  view.kind = tab.dataset.view;
  mark(tab);
  hideCard();
  arrange();
}

const linked = linkPanes(find(".panels"), () => picture, {
  point: (event) => event.pointerType === "mouse" && !view.pinned && probe(event),
  tap: (event) => {
    if (view.pinned) return hideCard();
    probe(event);
    view.pinned = !find(".card").hidden;
  },
  leave: hideCard,
  moved: (zoom) => (find(".zoom output").textContent = `${Math.round(100 * zoom)} %`),
});

function wire() {
  const buttons = { in: () => linked.zoomBy(1.5), out: () => linked.zoomBy(1 / 1.5), reset: linked.reset };
  for (const button of findAll("[data-zoom]")) button.addEventListener("click", buttons[button.dataset.zoom]);
  find(".panels").addEventListener("pointerleave", () => view.pinned || hideCard());
  find(".compare-opacity input").addEventListener("input", (event) => {
    view.opacity = event.target.value / 100;
    paintSoon();
  });
  for (const select of choosers) select.addEventListener("change", () => choosePair(select));
  swapper.addEventListener("click", swap);
  document.addEventListener("keydown", (event) => event.key === "Escape" && hideCard());
  new ResizeObserver(fit).observe(find(".compare-stage"));
}

wire();
choose(tabs[0]);
show(props.value);
watch("value", () => show(props.value));
