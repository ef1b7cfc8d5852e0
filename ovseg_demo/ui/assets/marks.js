// A box for each word that is typed; a ticked one counts as seen. The value is every word with a tick, also of those
// that are not typed just now: where a word comes back, its mark does.

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

draw();
watch("names", draw);
