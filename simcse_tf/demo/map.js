const svg = () => element.querySelector("svg.map");
const box = () => svg().getAttribute("viewBox").split(" ").map(Number);
const place = (b) => {
  svg().setAttribute("viewBox", b.join(" "));
  // Gaps grow, dots do not: so overlapping ones part.
  svg().style.setProperty("--zoom", b[2] / svg().dataset.whole.split(" ")[2]);
};
const read = (dot) => {
  element.querySelectorAll("circle.here").forEach((c) => c.classList.remove("here"));
  dot.classList.add("here");
  element.querySelector(".readout").textContent = dot.dataset.t;
};
const choose = (dot) => { read(dot); trigger("click", { index: +dot.dataset.i }); };
const zoom = (factor, x, y) => {
  const [left, top, width, height] = box();
  const [, , whole] = svg().dataset.whole.split(" ").map(Number);
  if (factor === 0 || width * factor >= whole) return place(svg().dataset.whole.split(" "));
  if (width * factor < 20) return;
  place([x - (x - left) * factor, y - (y - top) * factor, width * factor, height * factor]);
};
const at = (e) => {
  const seen = svg().getBoundingClientRect();
  const [left, top, width, height] = box();
  return [left + ((e.clientX - seen.left) / seen.width) * width, top + ((e.clientY - seen.top) / seen.height) * height];
};
let drag = null;
let moved = false;
element.addEventListener("mouseover", (e) => { if (e.target.matches("circle[data-i]")) read(e.target); });
element.addEventListener("click", (e) => {
  const button = e.target.closest("button[data-z]");
  if (button) {
    const [left, top, width, height] = box();
    zoom(+button.dataset.z, left + width / 2, top + height / 2);
  } else if (e.target.matches("circle[data-i]") && !moved) choose(e.target);
});
element.addEventListener("wheel", (e) => {
  // Without focus the wheel goes on scrolling the page.
  if (!e.target.closest("svg.map") || document.activeElement !== svg()) return;
  e.preventDefault();
  zoom(e.deltaY < 0 ? 0.85 : 1.18, ...at(e));
}, { passive: false });
element.addEventListener("pointerdown", (e) => {
  moved = false;
  if (e.target.closest("svg.map")) drag = at(e);
});
element.addEventListener("pointermove", (e) => {
  if (!drag || e.buttons !== 1) return;
  const [x, y] = at(e);
  const [left, top, width, height] = box();
  if (Math.hypot(drag[0] - x, drag[1] - y) > width / 200) {
    moved = true;
    place([left + drag[0] - x, top + drag[1] - y, width, height]);
  }
});
element.addEventListener("pointerup", () => { drag = null; });
const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
element.addEventListener("keydown", (e) => {
  if (!e.target.closest("svg.map")) return;
  const dots = [...element.querySelectorAll("circle[data-i]")];
  const here = element.querySelector("circle.here");
  if (e.key === "Enter" && here) return choose(here);
  const way = ways[e.key];
  if (!way || !dots.length) return;
  e.preventDefault();
  if (!here) return read(dots[0]);
  const where = (d) => [d.cx.baseVal.value, d.cy.baseVal.value];
  const [x, y] = where(here);
  let best = null;
  let nearest = Infinity;
  for (const d of dots) {
    const [dx, dy] = [where(d)[0] - x, where(d)[1] - y];
    const along = dx * way[0] + dy * way[1];
    const aside = Math.abs(dx * way[1] + dy * way[0]);
    if (along > 0.5 && along + 3 * aside < nearest) { nearest = along + 3 * aside; best = d; }
  }
  if (best) read(best);
});
