// Makes a picture of simcse_tf.evaluation.motion move.
//
// `before` is what this returned for the picture that it replaces, of the same texts: the dots start from there. A
// slider that was put back to an earlier evaluation stays there.
window.simcseMotion = (root, before) => {
  const { steps, points, together, apart } = JSON.parse(root.dataset.motion);
  const dots = [...root.querySelectorAll("circle[data-i]")];
  const lines = [...root.querySelectorAll("line[data-a]")];
  const slider = root.querySelector("input");
  const button = root.querySelector("button");
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const last = steps.length - 1;
  const state = { where: points[last], at: last, held: false };
  let frame = 0;
  let timer = 0;

  const place = (where) => {
    state.where = where;
    dots.forEach((dot, i) => {
      dot.setAttribute("cx", where[i][0]);
      dot.setAttribute("cy", where[i][1]);
    });
    for (const line of lines) {
      const i = line.dataset.a;
      const [a, b] = line.dataset.b ? [where[i], where[line.dataset.b]] : [points[0][i], where[i]];
      line.setAttribute("x1", a[0]);
      line.setAttribute("y1", a[1]);
      line.setAttribute("x2", b[0]);
      line.setAttribute("y2", b[1]);
    }
  };
  const number = (name, values) => {
    const shown = root.querySelector(`.numbers .${name}`);
    if (!shown) return;
    const value = values[state.at];
    const angle = Math.acos(Math.max(-1, Math.min(1, value)));
    shown.querySelector("b").textContent = value.toFixed(2);
    const hand = shown.querySelector(".hand");
    hand.setAttribute("x2", 20 + 20 * Math.cos(angle));
    hand.setAttribute("y2", 20 - 20 * Math.sin(angle));
  };
  const go = (at) => {
    state.at = at;
    slider.value = at;
    root.querySelector("output").textContent = `step ${steps[at]}`;
    root.dataset.at = steps[at];
    number("together", together);
    number("apart", apart);
    cancelAnimationFrame(frame);
    const [from, to, began] = [state.where, points[at], performance.now()];
    const draw = (now) => {
      const share = still ? 1 : Math.min(1, Math.max(0, now - began) / 600);
      const eased = share * share * (3 - 2 * share);
      place(to.map(([x, y], i) => [from[i][0] + (x - from[i][0]) * eased, from[i][1] + (y - from[i][1]) * eased]));
      if (share < 1) frame = requestAnimationFrame(draw);
    };
    frame = requestAnimationFrame(draw);
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    button.textContent = "Play";
  };
  slider.addEventListener("input", () => {
    stop();
    state.held = +slider.value < last;
    go(+slider.value);
  });
  button.addEventListener("click", () => {
    if (timer) return stop();
    button.textContent = "Pause";
    go(0);
    timer = setInterval(() => (root.isConnected && state.at < last ? go(state.at + 1) : stop()), 900);
  });
  const read = (e) => {
    if (!e.target.matches("circle[data-i]")) return;
    root.querySelectorAll(".here").forEach((c) => c.classList.remove("here"));
    e.target.classList.add("here");
    root.querySelector(".read").textContent = e.target.dataset.t;
  };
  root.addEventListener("pointerover", read);
  root.addEventListener("pointerdown", read);

  if (before && before.where.length === dots.length) {
    place(before.where);
    state.held = before.held;
    go(before.held ? Math.min(before.at, last) : last);
  } else {
    go(last);
  }
  return state;
};
