const cells = () => element.querySelectorAll(".heat tbody td");
const label = (row) => element.querySelector(`.heat tbody tr:nth-child(${row}) th`).title;
const read = (cell) => {
  element.querySelectorAll("td.here").forEach((c) => c.classList.remove("here"));
  cell.classList.add("here");
  const { r, c, s } = cell.dataset;
  element.querySelector(".readout").textContent = `${s}: ${r} “${label(r)}” and ${c} “${label(c)}”`;
};
const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
element.addEventListener("mouseover", (e) => {
  const cell = e.target.closest("td[data-r]");
  if (cell) read(cell);
});
element.addEventListener("click", (e) => {
  const cell = e.target.closest("td[data-r]");
  if (cell) read(cell);
});
element.addEventListener("keydown", (e) => {
  const step = steps[e.key];
  if (!step || !cells().length) return;
  e.preventDefault();
  const here = element.querySelector("td.here");
  const [r, c] = here ? [+here.dataset.r + step[0], +here.dataset.c + step[1]] : [1, 1];
  const next = element.querySelector(`td[data-r="${r}"][data-c="${c}"]`);
  if (next) { read(next); next.scrollIntoView({ block: "nearest", inline: "nearest" }); }
});
