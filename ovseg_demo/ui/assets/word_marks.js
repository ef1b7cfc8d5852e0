// A box for each typed word. The value is every word with a tick, also of words that are not typed just now: where a
// word comes back, its tick does.

const ticked = new Set(props.value);

function boxOf(name) {
  const node = make("label", "chip");
  const box = make("input");
  box.type = "checkbox";
  box.checked = ticked.has(name);
  box.addEventListener("change", () => {
    ticked[box.checked ? "add" : "delete"](name);
    props.value = [...ticked]; // which gradio tells as a change
  });
  node.append(box, make("span", "", name));
  return node;
}

const draw = () => find(".marks").replaceChildren(...props.names.map(boxOf));

find(".marks").setAttribute("aria-label", props.label);
draw();
watch("names", draw);
