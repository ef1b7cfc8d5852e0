// The result viewer. Runs once inside gr.HTML, which provides `element` (this component's node), `props` (what Python
// sent) and `watch`. Everything a person moves here (tabs, opacity, highlighting, the probe) is drawn in the browser
// from the per-pixel planes of the last result; the server is not asked.

import { nameOf, notFound, presenceOf, unlabelledShare } from "./legend.js";
import { percent } from "./numbers.js";
import { OUTLINE, outlined, overlayStyle, rgb, UNLABELLED, UNLABELLED_TINT } from "./planes.js";

const HINT = "Hover over the picture, or tap it, to see what a pixel is called and its five best scores.";

const view = { mode: "overlay", opacity: 0.55, highlighted: null, pinned: false };
let picture = null; // { width, height, photo: RGBA bytes }
let result = null; // { names, colours, legend, presence, labels, scores, top, edges, tints, heat }

const STYLES = {
  overlay: () => overlayStyle(result, result.tints, view.opacity, view.highlighted),
  labels: () => {
    const looks = [[UNLABELLED_TINT, 1], ...result.tints.map((tint) => [tint, 1]), [OUTLINE, 0.95]];
    return outlined(result.labels, result.edges, looks, (i) => result.labels[i] + 1, view.highlighted);
  },
  confidence: () => {
    const { labels, edges, scores, heat } = result;
    const looks = [...heat.map((tint) => [tint, 1]), [UNLABELLED_TINT, 1], [OUTLINE, 0.35]];
    const lookOf = (i) => (labels[i] === UNLABELLED ? heat.length : scores[i]);
    return outlined(labels, edges, looks, lookOf, view.highlighted);
  },
};

function paint() {
  if (picture && result) drawPixels(find("canvas"), picture, STYLES[view.mode]());
}

function highlight(index) {
  view.highlighted = index;
  paint();
}

function fillLegend() {
  const rows = result.legend.map(legendRow);
  const rest = unlabelledShare(result.legend);
  if (rest) rows.push(legendRow({ index: UNLABELLED, share: rest }));
  find(".legend-list").replaceChildren(...rows);
  const absent = notFound(result.names.length, [result.legend]);
  find(".legend-absent").replaceChildren(notFoundRows(absent, result, titleOf));
  find(".viewer-notes").replaceChildren(...result.notes.map((note) => make("p", "", note)));
}

function legendRow({ index, share, confidence }) {
  const row = make("li", index === UNLABELLED ? "legend-row unlabelled" : "legend-row");
  row.title = titleOf(index);
  row.append(swatch(result.colours[index]), make("span", "legend-name", nameOf(result.names, index)));
  row.append(make("span", "legend-share", percent(share)));
  row.append(bar("legend-bar", share, result.colours[index] ?? "var(--body-text-color-subdued)"));
  if (index !== UNLABELLED) {
    row.append(make("span", "legend-confidence", `confidence ${Math.round(100 * confidence)} %`));
  }
  highlights(row, index, highlight);
  return row;
}

function titleOf(index) {
  const presence = presenceOf(result.presence, index);
  return nameOf(result.names, index) + (presence && `: ${presence}`);
}

function probe(event) {
  if (!picture || !result) return;
  const canvas = find("canvas");
  const box = canvas.getBoundingClientRect();
  // The canvas is letterboxed (object-fit: contain), so the picture is centred inside its box.
  const zoom = Math.min(box.width / picture.width, box.height / picture.height);
  const x = Math.floor((event.clientX - box.left - (box.width - zoom * picture.width) / 2) / zoom);
  const y = Math.floor((event.clientY - box.top - (box.height - zoom * picture.height) / 2) / zoom);
  if (x < 0 || y < 0 || x >= picture.width || y >= picture.height) {
    find(".probe").hidden = true;
    view.pinned = false;
    return;
  }
  const i = y * picture.width + x;
  const label = result.labels[i];
  const card = find(".probe");
  const title = make("div", "probe-title");
  title.append(swatch(result.colours[label]), make("strong", "", nameOf(result.names, label)));
  card.replaceChildren(title);
  const rows = result.top[0].scores[i] > 0 ? result.top : [];
  if (!rows.length) card.append(make("div", "probe-none", "No word fits here at all."));
  else if (label === UNLABELLED) card.append(make("div", "probe-none", "None fits well enough:"));
  for (const { indices, scores } of rows) {
    const row = make("div", "probe-row");
    const share = scores[i] / 255;
    row.append(make("span", "probe-name", result.names[indices[i]]));
    row.append(bar("probe-bar", share, result.colours[indices[i]]), make("span", "probe-score", percent(share)));
    card.append(row);
  }
  card.hidden = false;
  placeCard(card, event, find(".stage"));
}

const tabs = findAll("[role=tab]");
const mark = tabbed(tabs, choose);

function choose(tab) {
  view.mode = tab.dataset.mode;
  mark(tab);
  find(".opacity").style.visibility = view.mode === "overlay" ? "visible" : "hidden";
  find(".heat-key").hidden = view.mode !== "confidence";
  paint();
}

function wire() {
  find(".opacity input").addEventListener("input", (event) => {
    view.opacity = event.target.value / 100;
    requestAnimationFrame(paint);
  });
  const canvas = find("canvas");
  const card = find(".probe");
  const unpin = () => {
    view.pinned = false;
    card.hidden = true;
  };
  canvas.addEventListener("pointermove", (event) => {
    if (!view.pinned && event.pointerType === "mouse") probe(event);
  });
  canvas.addEventListener("pointerleave", () => {
    if (!view.pinned) card.hidden = true;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") unpin();
  });
  canvas.addEventListener("click", (event) => {
    if (view.pinned) return unpin();
    view.pinned = true;
    probe(event);
  });
}

async function show(sent) {
  if (!sent) return;
  const layer = await decodeLayer(sent, sent.width, sent.height);
  const photo = sent.photo ? (await pixelsOf(sent.photo)).data : picture?.photo;
  if (sent.id !== props.value.id) return; // a newer result arrived while this one was decoded
  if (!sent.photo && sent.key !== picture?.key) return; // a late answer about an earlier photo
  picture = { width: sent.width, height: sent.height, key: sent.key, photo };
  result = { ...sent, ...layer, tints: sent.colours.map(rgb), heat: sent.heat.map(rgb) };
  find(".viewer").classList.add("has-result");
  find(".viewer").dataset.result = sent.id;
  find(".probe").hidden = true;
  view.pinned = false;
  view.highlighted = null; // the legend row under the pointer goes without telling
  find(".heat-key .gradient").style.background = `linear-gradient(90deg, ${sent.heat.filter((_, i) => i % 51 === 0)})`;
  find(".viewer-hint").textContent = HINT;
  fillLegend();
  paint();
  if (sent.photo) reveal(); // not while the slider moves
}

wire();
choose(tabs[0]);
show(props.value);
watch("value", () => show(props.value));
