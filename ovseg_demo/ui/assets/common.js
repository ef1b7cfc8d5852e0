// What the components of the page share; it runs before each of their scripts. User words only ever enter the document
// as textContent.

const find = (selector) => element.querySelector(selector);
const findAll = (selector) => [...element.querySelectorAll(selector)];

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// On a phone the results lie below the controls.
function reveal() {
  if (!matchMedia("(max-width: 900px)").matches) return;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  element.scrollIntoView({ behavior: still ? "auto" : "smooth", block: "start" });
}

function swatch(colour) {
  const node = make("span", "swatch");
  if (colour) node.style.background = colour;
  return node;
}

function bar(className, share, colour) {
  const node = make("span", className);
  const fill = make("span");
  fill.style.width = `${100 * share}%`;
  fill.style.background = colour;
  node.append(fill);
  return node;
}

// One of several tabs is chosen, by click or by arrow keys. Returns the function that marks it.
function tabbed(tabs, choose) {
  const mark = (chosen) => {
    for (const tab of tabs) {
      tab.setAttribute("aria-selected", tab === chosen);
      tab.tabIndex = tab === chosen ? 0 : -1;
    }
  };
  tabs.forEach((tab, at) => {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(at + step + tabs.length) % tabs.length];
      next.focus();
      choose(next);
    });
  });
  return mark;
}

// Legend rows of the classes that no pixel shows. Many are folded away, and stay unfolded once a person has opened them.
function notFoundRows(indices, { names, colours }, titleOf) {
  const list = make("ul", "legend-list");
  for (const index of indices) {
    const row = make("li", "legend-row absent");
    row.title = titleOf(index);
    row.append(swatch(colours[index]), make("span", "legend-name", names[index]));
    row.append(make("span", "legend-share", "not found"));
    list.append(row);
  }
  if (indices.length <= 6) return list;
  const fold = make("details", "not-found");
  fold.open = Boolean(find(".not-found")?.open);
  fold.append(make("summary", "", `${indices.length} words not found`), list);
  return fold;
}

// Highlights while a row is under the pointer or has the focus.
function highlights(row, index, highlight) {
  row.tabIndex = 0;
  for (const event of ["pointerenter", "focus"]) row.addEventListener(event, () => highlight(index));
  for (const event of ["pointerleave", "blur"]) row.addEventListener(event, () => highlight(null));
}

// Puts a card beside the pointer, away from the nearer edge, and never over the edge of its stage.
function placeCard(card, event, stage) {
  const box = stage.getBoundingClientRect();
  const place = (at, size, room) => Math.max(4, Math.min(at > room / 2 ? at - size - 14 : at + 14, room - size - 4));
  card.style.left = `${place(event.clientX - box.left, card.offsetWidth, box.width)}px`;
  card.style.top = `${place(event.clientY - box.top, card.offsetHeight, box.height)}px`;
}
