// The result viewer. Runs once inside gr.HTML, which provides `element` (this component's node), `props` (what Python
// sent) and `watch`. Everything a person moves here (tabs, opacity, highlighting, the probe) is drawn in the browser
// from the per-pixel planes of the last result; the server is not asked. User words only ever enter as textContent.

const UNLABELLED = -1;
const HINT = "Hover over the picture, or tap it, to see what a pixel is called and its five best scores.";

const view = { mode: "overlay", opacity: 0.55, highlighted: null, pinned: false };
let picture = null; // { width, height, photo: RGBA bytes }
let result = null; // { names, colours, legend, labels, scores, topClasses, topScores, edges }

const find = (selector) => element.querySelector(selector);

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

const percent = (share) => (share > 0 && share < 0.0005 ? "<0.1 %" : share >= 0.0995 ? `${Math.round(100 * share)} %` : `${(100 * share).toFixed(1)} %`);

async function pixelsOf(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = make("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

// The planes lie below each other in one picture: (label + 1, confidence), then (class, score) from best to fifth.
// Red and green hold the index, blue the score in 255ths.
function unpack(data, width, height, depth) {
  const size = width * height;
  const planes = [];
  for (let plane = 0; plane <= depth; plane++) {
    const indices = new Int16Array(size);
    const scores = new Uint8Array(size);
    for (let i = 0, at = 4 * plane * size; i < size; i++, at += 4) {
      indices[i] = data[at] + 256 * data[at + 1];
      scores[i] = data[at + 2];
    }
    planes.push({ indices, scores });
  }
  const [first, ...top] = planes;
  const labels = first.indices.map((index) => index - 1);
  return { labels, scores: first.scores, top };
}

function edgesOf(labels, width, height) {
  const edges = new Uint8Array(labels.length);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      edges[i] =
        (x + 1 < width && labels[i] !== labels[i + 1]) || (y + 1 < height && labels[i] !== labels[i + width]) ? 1 : 0;
    }
  }
  return edges;
}

const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

function paint() {
  const canvas = find("canvas");
  if (!picture || !result || !canvas) return;
  const { width, height, photo } = picture;
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const context = canvas.getContext("2d");
  const drawn = context.createImageData(width, height);
  const out = drawn.data;
  const { labels, scores, edges, tints, heat } = result;
  const shown = view.highlighted;
  for (let i = 0, at = 0; i < labels.length; i++, at += 4) {
    const label = labels[i];
    const dimmed = shown !== null && label !== shown;
    let alpha = view.mode === "overlay" ? view.opacity : 1;
    let tint = label === UNLABELLED ? null : view.mode === "confidence" ? heat[scores[i]] : tints[label];
    if (!tint) {
      if (view.mode === "overlay") alpha = 0;
      else tint = [38, 40, 46];
    }
    if (edges[i] && !dimmed) {
      tint = [255, 255, 255];
      alpha = view.mode === "confidence" ? 0.35 : 0.95;
      if (view.mode === "overlay" && view.opacity === 0) alpha = 0;
    }
    for (let c = 0; c < 3; c++) {
      let value = alpha ? photo[at + c] + alpha * (tint[c] - photo[at + c]) : photo[at + c];
      if (dimmed) value = 0.35 * value + 20;
      out[at + c] = value;
    }
    out[at + 3] = 255;
  }
  context.putImageData(drawn, 0, 0);
}

function fillLegend() {
  const list = find(".legend-list");
  list.replaceChildren();
  for (const entry of result.legend) {
    const row = make("li", "legend-row");
    row.tabIndex = 0;
    const swatch = make("span", "swatch");
    swatch.style.background = result.colours[entry.index];
    const bar = make("span", "legend-bar");
    const fill = make("span");
    fill.style.width = `${100 * entry.share}%`;
    fill.style.background = result.colours[entry.index];
    bar.append(fill);
    const name = make("span", "legend-name", result.names[entry.index]);
    name.title = result.names[entry.index];
    row.append(swatch, name, make("span", "legend-share", percent(entry.share)), bar);
    row.append(make("span", "legend-confidence", `confidence ${Math.round(100 * entry.confidence)} %`));
    const show = (index) => () => {
      view.highlighted = index;
      paint();
    };
    row.addEventListener("pointerenter", show(entry.index));
    row.addEventListener("focus", show(entry.index));
    row.addEventListener("pointerleave", show(null));
    row.addEventListener("blur", show(null));
    list.append(row);
  }
  const missing = result.names.length - result.legend.length;
  if (!result.legend.length) list.append(make("li", "legend-note", "No mask matched these words."));
  else if (missing) {
    const absent = result.names.filter((_, i) => !result.legend.some((entry) => entry.index === i));
    const told = absent.slice(0, 8).join(", ") + (absent.length > 8 ? ` and ${absent.length - 8} more` : "");
    list.append(make("li", "legend-note", `Not found: ${told}`));
  }
  find(".viewer-notes").replaceChildren(...result.notes.map((note) => make("p", "", note)));
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
  card.replaceChildren();
  const title = make("div", "probe-title");
  const swatch = make("span", "swatch");
  if (label !== UNLABELLED) swatch.style.background = result.colours[label];
  title.append(swatch, make("strong", "", label === UNLABELLED ? "unlabelled" : result.names[label]));
  card.append(title);
  const rows = result.top[0].scores[i] > 0 ? result.top : [];
  for (const plane of rows) {
    const row = make("div", "probe-row");
    const bar = make("span", "probe-bar");
    const fill = make("span");
    fill.style.width = `${(100 * plane.scores[i]) / 255}%`;
    fill.style.background = result.colours[plane.indices[i]];
    bar.append(fill);
    const score = make("span", "probe-score", percent(plane.scores[i] / 255));
    row.append(make("span", "probe-name", result.names[plane.indices[i]]), bar, score);
    card.append(row);
  }
  if (!rows.length) card.append(make("div", "probe-none", "No painted mask covers this pixel."));
  card.hidden = false;
  const stage = find(".stage").getBoundingClientRect();
  // Beside the pointer, away from the nearer edge, and never over the edge of the stage.
  const place = (at, size, room) => Math.max(4, Math.min(at > room / 2 ? at - size - 14 : at + 14, room - size - 4));
  card.style.left = `${place(event.clientX - stage.left, card.offsetWidth, stage.width)}px`;
  card.style.top = `${place(event.clientY - stage.top, card.offsetHeight, stage.height)}px`;
}

function choose(mode) {
  view.mode = mode;
  for (const tab of element.querySelectorAll("[role=tab]")) {
    const chosen = tab.dataset.mode === mode;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
  }
  find(".opacity").style.visibility = mode === "overlay" ? "visible" : "hidden";
  find(".heat-key").hidden = mode !== "confidence";
  paint();
}

function wire() {
  const tabs = [...element.querySelectorAll("[role=tab]")];
  tabs.forEach((tab, at) => {
    tab.addEventListener("click", () => choose(tab.dataset.mode));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(at + step + tabs.length) % tabs.length];
      next.focus();
      choose(next.dataset.mode);
    });
  });
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
  const planes = await pixelsOf(sent.planes);
  const photo = sent.photo ? (await pixelsOf(sent.photo)).data : picture?.photo;
  if (sent.id !== props.value.id) return; // a newer result arrived while this one was decoded
  if (!sent.photo && sent.key !== picture?.key) return; // a late answer about an earlier photo
  picture = { width: sent.width, height: sent.height, key: sent.key, photo };
  const unpacked = unpack(planes.data, sent.width, sent.height, sent.depth);
  const edges = edgesOf(unpacked.labels, sent.width, sent.height);
  result = { ...sent, ...unpacked, edges, tints: sent.colours.map(rgb), heat: sent.heat.map(rgb) };
  element.querySelector(".viewer").classList.add("has-result");
  element.querySelector(".viewer").dataset.result = sent.id;
  find(".probe").hidden = true;
  view.pinned = false;
  view.highlighted = null; // the legend row under the pointer goes without telling
  find(".heat-key .gradient").style.background = `linear-gradient(90deg, ${sent.heat.filter((_, i) => i % 51 === 0)})`;
  find(".viewer-hint").textContent = HINT;
  fillLegend();
  paint();
}

wire();
choose("overlay");
show(props.value);
watch("value", () => show(props.value));
