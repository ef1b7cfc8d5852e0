// Look inside: the maps by which a method decided, of one word at a time or of regions. Runs once inside gr.HTML, as viewer.js
// does. With a result Python sends which maps there are; it draws the maps of a word on request, while this is open.

const panels = find(".evidence-panels");
let available = null; // { id, words: pairs of a class index and its name, first: the index to begin with }
let word = null; // the index of the word whose maps are shown
let picked = null; // the name that the person chose last: the next result begins with it too

const keyOf = (id, word) => `${id} ${word}`;

function request() {
  if (!available || !find(".evidence").open || panels.dataset.shown === keyOf(available.id, word)) return;
  panels.setAttribute("aria-busy", "true");
  trigger("select", { id: available.id, word });
}

function begin(sent) {
  available = sent;
  const select = find("select");
  select.replaceChildren(...available.words.map(([index, name]) => new Option(name, index)));
  for (const part of [".evidence-word", ".evidence-key"]) find(part).hidden = !available.words.length;
  word = available.words.find(([, name]) => name === picked)?.[0] ?? available.first;
  if (word !== null) select.value = word;
  panels.replaceChildren();
  panels.removeAttribute("aria-busy");
  request();
}

function listOf(regions) {
  const list = make("ul", "evidence-regions");
  for (const [colour, text] of regions) {
    const swatch = make("span", "swatch");
    swatch.style.background = colour;
    const item = make("li");
    item.append(swatch, make("span", "", text));
    list.append(item);
  }
  return list;
}

function panelOf({ title, picture, caption, regions }) {
  const node = make("figure", "evidence-panel");
  if (picture) {
    const image = make("img");
    image.src = picture;
    image.alt = title;
    node.append(image);
  }
  const text = make("figcaption");
  text.append(make("strong", "", title), make("span", "", caption));
  if (regions) text.append(listOf(regions));
  node.classList.toggle("wide", Boolean(regions));
  node.append(text);
  return node;
}

function show(sent) {
  if (!sent) available = null;
  else if (sent.words) begin(sent);
  else if (sent.id === available?.id && sent.word === word) {
    panels.replaceChildren(...sent.panels.map(panelOf));
    panels.dataset.shown = keyOf(sent.id, sent.word);
    panels.removeAttribute("aria-busy");
  }
  find(".evidence").hidden = !available;
}

find(".evidence").addEventListener("toggle", request);
find("select").addEventListener("change", ({ target }) => {
  picked = target.selectedOptions[0].textContent;
  word = Number(target.value);
  request();
});
show(props.value);
watch("value", () => show(props.value));
