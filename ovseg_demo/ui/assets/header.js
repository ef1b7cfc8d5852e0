// The tabs of the page: what is shown for one task only follows from the body's data-task (style.css). The server is
// told, because it knows which settings the task's methods use.

const tasks = findAll("[data-task]");

const mark = tabbed(tasks, (tab) => {
  document.body.dataset.task = tab.dataset.task;
  mark(tab);
  trigger("select", { task: tab.dataset.task });
});

document.body.dataset.task = tasks[0].dataset.task;
mark(tasks[0]);
find(".theme").onclick = () => document.body.classList.toggle("dark");
