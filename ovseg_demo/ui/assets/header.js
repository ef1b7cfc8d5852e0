// The tabs of the page: what is shown for one task only follows from the body's data-task (style.css). The server
// gets an event, because it knows which options the task's methods have.

const tasks = findAll("[data-task]");

const mark = tabbed(tasks, (tab) => {
  document.body.dataset.task = tab.dataset.task;
  mark(tab);
  trigger("select", { task: tab.dataset.task });
});

document.body.dataset.task = tasks[0].dataset.task;
mark(tasks[0]);
find(".theme").onclick = () => document.body.classList.toggle("dark");

// gradio gives a group of radio buttons or boxes no name that a screen reader finds, and an option with a switch no group:
// both take the text of their label. Groups come and go with the methods.
function nameGroups() {
  for (const group of document.querySelectorAll(":is(fieldset, .option-slider, .option-wordmarks):not([aria-label])")) {
    const label = group.querySelector("[data-testid='block-info'], .option-label span")?.textContent.trim();
    if (!label) continue;
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", label);
  }
}

new MutationObserver(nameGroups).observe(document.body, { childList: true, subtree: true });
nameGroups();
