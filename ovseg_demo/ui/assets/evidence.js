// Look inside: the heat maps by which a method decided, of one word at a time. Runs once inside gr.HTML, as viewer.js
// does. With a result Python sends what there is to look at; the maps come when they are asked for, while this is open.

const panels = find(".evidence-panels");
let offered = null; // { id, words: pairs of a class index and its name, first: the index to begin with }
let wanted = null; // the index of the word that is looked at
let picked = null; // the name that the person chose last: the next result begins with it too

const keyOf = (id, word) => `${id} ${word}`;

function ask() {
  if (!offered || !find(".evidence").open || panels.dataset.shown === keyOf(offered.id, wanted)) return;
  panels.setAttribute("aria-busy", "true");
  trigger("select", { id: offered.id, word: wanted });
}

function begin(sent) {
  offered = sent;
  const select = find("select");
  select.replaceChildren(...offered.words.map(([index, name]) => new Option(name, index)));
  find(".evidence-word").hidden = !offered.words.length;
  wanted = offered.words.find(([, name]) => name === picked)?.[0] ?? offered.first;
  if (wanted !== null) select.value = wanted;
  panels.replaceChildren();
  panels.removeAttribute("aria-busy");
  ask();
}

function panelOf({ title, picture, caption }) {
  const node = make("figure", "evidence-panel");
  if (picture) {
    const image = make("img");
    image.src = picture;
    image.alt = title;
    node.append(image);
  }
  const told = make("figcaption");
  told.append(make("strong", "", title), make("span", "", caption));
  node.append(told);
  return node;
}

function show(sent) {
  if (!sent) offered = null;
  else if (sent.words) begin(sent);
  else if (sent.id === offered?.id && sent.word === wanted) {
    panels.replaceChildren(...sent.panels.map(panelOf));
    panels.dataset.shown = keyOf(sent.id, sent.word);
    panels.removeAttribute("aria-busy");
  }
  find(".evidence").hidden = !offered;
}

find(".evidence").addEventListener("toggle", ask);
find("select").addEventListener("change", ({ target }) => {
  picked = target.selectedOptions[0].textContent;
  wanted = Number(target.value);
  ask();
});
show(props.value);
watch("value", () => show(props.value));
