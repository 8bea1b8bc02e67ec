// A map of sentences, or the same ones under two models: dots on canvases that are drawn anew for every frame.
//
// The pixels are written here, not by a graphics card: 50,000 dots take some milliseconds on any machine, with or without
// WebGL. `data` is what simcse_tf.demo.map sends, `ask` asks the server which sentences are near one of them, or a new one.
window.simcseMap = (root, data, ask) => {
  const { texts, points, models, colours, labels } = data;
  const count = texts.length;
  const PALETTE = ["#2563eb", "#ea580c", "#0d9488", "#c026d3", "#ca8a04", "#dc2626", "#65a30d", "#7c3aed", "#0891b2", "#78716c"];
  const SHADES = 32;
  const LISTED = 200;
  const radius = count <= 100 ? 7 : count <= 1000 ? 5 : count <= 10000 ? 3 : 2;

  // Elements
  const make = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children);
    return made;
  };
  const button = (label, name, press) => make("button", { type: "button", "aria-label": name, title: name, onclick: press }, label);
  const tools = [["move", "✥", "drag moves the map"], ["box", "▭", "drag selects a box"], ["lasso", "◌", "drag selects what it encircles"]];
  const toolButtons = tools.map(([name, sign, says]) => button(sign, says, () => useTool(name)));
  const colourBy = make("select", { "aria-label": "coloured by", onchange: () => recolour() });
  colours.forEach(({ name }, i) => colourBy.append(make("option", { value: i }, `coloured by ${name}`)));
  colourBy.append(make("option", { value: "likeness", disabled: true }, "coloured by likeness to your sentence"));
  const filterBox = make("input", { type: "search", placeholder: "show only: words or /pattern/", "aria-label": "show only sentences with these words, or a /pattern/", oninput: () => refilter() });
  const queryBox = make("input", { type: "search", placeholder: "put a sentence on the map", "aria-label": "put a sentence on the map", oninput: () => typed() });
  const said = make("output", { "aria-live": "polite" });
  const legend = make("div", { class: "groups" });
  const list = make("div", { class: "list", "aria-live": "polite" });
  const tip = make("div", { class: "tip", hidden: true });
  const panes = points.map((_, which) => {
    const canvas = make("canvas", { tabindex: 0, role: "application", "aria-label": `map of ${count} sentences under ${models[which]}; arrow keys move from dot to dot, Enter shows neighbours, plus and minus zoom` });
    return { which, canvas, context: canvas.getContext("2d"), image: null, pixels: null };
  });
  root.replaceChildren(
    make("div", { class: "tools" },
      make("span", { class: "set" }, ...toolButtons, button("+", "zoom in", () => zoomBy(1.4)), button("−", "zoom out", () => zoomBy(1 / 1.4)), button("⤢", "whole map", () => whole()), button("⤓", "save the picture", () => savePicture())),
      colourBy, filterBox, queryBox, said),
    make("div", { class: "body" },
      make("div", { class: "panes" }, ...panes.map(({ canvas, which }) => make("figure", {}, ...(models.length > 1 ? [make("figcaption", {}, models[which])] : []), canvas))),
      make("aside", {}, legend, list)),
    tip);

  // State
  const view = { scale: 1, left: 0, top: 0 };
  let [width, height, ratio] = [0, 0, 1];
  let tool = "move";
  let here = -1;
  let anchor = -1;
  let query = null;
  let found = [];
  let drawing = null;
  let asked = 0;
  const wanted = new Uint8Array(count).fill(1);
  const off = new Set();
  let chosen = null;
  let lit = new Uint8Array(count).fill(1);
  let shade = new Uint8Array(count);
  let [palette, faint, paper, ink] = [[], 0, 0, ""];

  // Colours, as the canvas's little-endian pixels
  const style = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const packed = (colour) => {
    const { context } = panes[0];
    context.fillStyle = colour;
    const number = parseInt(context.fillStyle.slice(1), 16);
    return ((number & 255) << 16) | (number & 0xff00) | (number >> 16);
  };
  const mix = (under, over, share) => {
    const rest = 256 - share;
    const blueRed = (((under & 0xff00ff) * rest + (over & 0xff00ff) * share) >>> 8) & 0xff00ff;
    return blueRed | ((((under & 0xff00) * rest + (over & 0xff00) * share) >>> 8) & 0xff00) | 0xff000000;
  };
  const restyle = () => {
    ink = style("--mark");
    paper = packed(style("--map-paper")) | 0xff000000;
    faint = packed(style("--map-faint"));
    const [cold, hot] = [packed(style("--map-cold")), packed(style("--map-hot"))];
    palette = colourBy.value === "likeness"
      ? Array.from({ length: SHADES }, (_, i) => mix(cold, hot, Math.round((256 * i) / (SHADES - 1))))
      : PALETTE.map(packed);
  };
  const recolour = () => {
    off.clear();
    if (colourBy.value === "likeness") {
      const { scores, low, high } = query;
      shade = Uint8Array.from(scores, (s) => Math.max(0, Math.min(SHADES - 1, Math.round(((s - low) / (high - low || 1)) * (SHADES - 1)))));
    } else shade = Uint8Array.from(colours[colourBy.value].codes);
    restyle();
    relight();
  };

  // Which dots are lit; the others are grey
  const relight = () => {
    const near = found.length ? new Set(found.flatMap(({ nearest }) => nearest.map(([i]) => i))) : null;
    const byGroup = colourBy.value !== "likeness" && off.size;
    for (let i = 0; i < count; i++) {
      lit[i] = wanted[i] && !(byGroup && off.has(shade[i])) && (!chosen || chosen[i]) && (!near || colourBy.value === "likeness" || near.has(i) || i === anchor) ? 1 : 0;
    }
    showLegend();
    redraw();
  };
  const refilter = () => {
    const given = filterBox.value.trim();
    const pattern = given.match(/^\/(.+)\/([a-z]*)$/);
    let test = (text) => text.toLowerCase().includes(given.toLowerCase());
    filterBox.setCustomValidity("");
    if (pattern) {
      try {
        const expression = new RegExp(pattern[1], pattern[2].replace(/[gy]/g, "") || "i");
        test = (text) => expression.test(text);
      } catch {
        filterBox.setCustomValidity("not a pattern");
        said.textContent = "not a pattern yet";
        return;
      }
    }
    let kept = 0;
    texts.forEach((text, i) => { kept += wanted[i] = !given || test(text) ? 1 : 0; });
    said.textContent = given ? `${kept.toLocaleString("en")} of ${count.toLocaleString("en")}` : "";
    relight();
  };
  const showLegend = () => {
    if (colourBy.value === "likeness") {
      const { low, high } = query;
      legend.replaceChildren(make("p", {}, `${low.toFixed(2)} `, make("i", { class: "ramp" }), ` ${high.toFixed(2)}`));
      return;
    }
    const { names } = colours[colourBy.value];
    const counts = new Array(names.length).fill(0);
    for (let i = 0; i < count; i++) counts[shade[i]] += wanted[i] && (!chosen || chosen[i]) ? 1 : 0;
    legend.replaceChildren(...names.map((name, code) => make("button", { type: "button", "aria-pressed": String(!off.has(code)), title: "show only this group; further clicks add and remove groups", onclick: () => {
      if (!off.size) names.forEach((_, other) => other !== code && off.add(other));
      else if (!off.delete(code)) off.add(code);
      if (off.size === names.length) off.clear();
      relight();
    } }, make("i", { style: `background:${PALETTE[code]}` }), make("span", {}, name), make("b", {}, counts[code].toLocaleString("en")))));
  };

  // The list beside the map
  const csv = (rows) => {
    const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
    const groups = colours[0];
    const lines = rows.map((i) => [i + 1, quoted(texts[i]), quoted(groups.names[groups.codes[i]])].join(","));
    return ["row,text,cluster", ...lines].join("\r\n") + "\r\n";
  };
  const save = (name, href) => make("a", { download: name, href }).click();
  const savePicture = () => save("map.png", panes[0].canvas.toDataURL());
  const item = (i, ...more) => make("li", { tabindex: 0, onpointerenter: () => point(i), onclick: () => choose(i), onkeydown: (e) => e.key === "Enter" && choose(i) }, ...more, make("span", {}, texts[i]));
  const clear = () => {
    [anchor, found, chosen] = [-1, [], null];
    list.replaceChildren(make("p", { class: "hint" }, "Point at a dot to read it; click it for its neighbours. Box and lasso select."));
    relight();
  };
  const showChosen = () => {
    const rows = [];
    for (let i = 0; i < count; i++) if (chosen[i]) rows.push(i);
    if (!rows.length) return clear();
    const more = rows.length > LISTED ? [make("p", { class: "hint" }, `the first ${LISTED} are listed; the download has all`)] : [];
    list.replaceChildren(
      make("h4", {}, `${rows.length.toLocaleString("en")} selected`),
      make("p", { class: "set" }, make("button", { type: "button", class: "csv", onclick: () => save("selected.csv", URL.createObjectURL(new Blob([csv(rows)], { type: "text/csv" }))) }, "Download CSV"), make("button", { type: "button", onclick: clear }, "Clear")),
      ...more,
      make("ul", {}, ...rows.slice(0, LISTED).map((i) => item(i))));
    relight();
  };
  const showNear = (of) => {
    const parts = found.flatMap(({ nearest }, which) => [
      ...(models.length > 1 ? [make("h5", {}, models[which])] : []),
      make("ol", {}, ...nearest.map(([i, score]) => item(i, make("b", {}, score.toFixed(3))))),
    ]);
    list.replaceChildren(make("h4", {}, `Nearest to “${of}”`), make("p", { class: "set" }, make("button", { type: "button", onclick: () => { queryBox.value = ""; query = null; unlike(); clear(); } }, "Clear")), ...parts);
    relight();
  };
  const complain = (message) => list.replaceChildren(make("p", { class: "wrong" }, message));

  // What the server knows: neighbours
  const answer = async (question) => {
    const number = ++asked;
    let got;
    try {
      got = await ask(question);
    } catch {
      got = { error: "The server does not answer." };
    }
    if (number !== asked) return null;
    if (got.error) { complain(got.error); return null; }
    return got.found;
  };
  const choose = async (i) => {
    point(i);
    const got = await answer({ index: i });
    if (!got) return;
    [anchor, found, chosen] = [i, got, null];
    showNear(texts[i]);
  };
  const likeness = () => colourBy.querySelector("[value=likeness]");
  const unlike = () => {
    likeness().disabled = true;
    if (colourBy.value === "likeness") { colourBy.value = "0"; recolour(); }
  };
  let waiting = 0;
  const typed = () => {
    clearTimeout(waiting);
    waiting = setTimeout(async () => {
      const text = queryBox.value.trim();
      if (!text) { asked++; query = null; unlike(); clear(); return; }
      const got = await answer({ text });
      if (!got) return;
      // Where its nearest neighbours are, the nearest of them first of all.
      const at = points.map(([xs, ys], which) => {
        const { nearest } = got[which];
        const weights = nearest.slice(0, 5).map(([, score]) => Math.exp(20 * (score - nearest[0][1])));
        const sum = weights.reduce((a, b) => a + b);
        const mean = (of) => weights.reduce((total, weight, k) => total + weight * of[nearest[k][0]], 0) / sum;
        return [mean(xs), mean(ys)];
      });
      const { scores } = got[0];
      const sorted = [...scores].sort((a, b) => a - b);
      query = { text, at, scores, low: sorted[Math.floor(count * 0.5)] / 1000, high: sorted[count - 1] / 1000 };
      query.scores = scores.map((s) => s / 1000);
      [anchor, found, chosen] = [-1, got, null];
      likeness().disabled = false;
      if (colourBy.value === "likeness") recolour();
      showNear(text);
    }, 250);
  };

  // Drawing
  const x = (which, i) => points[which][0][i] * view.scale + view.left;
  const y = (which, i) => points[which][1][i] * view.scale + view.top;
  const disc = (r) => {
    const cells = [];
    const reach = Math.ceil(r);
    for (let dy = -reach; dy <= reach; dy++) {
      for (let dx = -reach; dx <= reach; dx++) {
        const share = Math.max(0, Math.min(1, r + 0.5 - Math.hypot(dx, dy)));
        if (share > 0) cells.push([dy, dx, Math.round(share * 215)]);
      }
    }
    return { reach, cells };
  };
  const stamp = (pane, xs, ys, r, of, colourOf) => {
    const { pixels } = pane;
    const [wide, high] = [pane.canvas.width, pane.canvas.height];
    const { reach, cells } = disc(r);
    const offsets = Int32Array.from(cells, ([dy, dx]) => dy * wide + dx);
    const shares = Int32Array.from(cells, ([, , share]) => share);
    const [scale, left, top] = [view.scale * ratio, view.left * ratio, view.top * ratio];
    for (let i = 0; i < count; i++) {
      if (lit[i] !== of) continue;
      const cx = Math.round(xs[i] * scale + left);
      const cy = Math.round(ys[i] * scale + top);
      if (cx < reach || cy < reach || cx >= wide - reach || cy >= high - reach) continue;
      const at = cy * wide + cx;
      const colour = colourOf(i);
      for (let k = 0; k < offsets.length; k++) pixels[at + offsets[k]] = mix(pixels[at + offsets[k]], colour, shares[k]);
    }
  };
  const ring = (context, cx, cy, r, thick = 2) => {
    context.lineWidth = thick;
    context.strokeStyle = ink;
    context.beginPath();
    context.arc(cx, cy, r, 0, 2 * Math.PI);
    context.stroke();
  };
  const write = (context, taken, text, cx, cy, { bold = false, beside = false } = {}) => {
    context.font = `${bold ? 600 : 400} ${bold ? 13 : 12}px system-ui, sans-serif`;
    const wide = context.measureText(text).width;
    const left = beside ? cx + radius + 4 : Math.max(4, Math.min(width - wide - 4, cx - wide / 2));
    const box = [left - 4, cy - 10, left + wide + 4, cy + 10];
    if (box[0] < 0 || box[2] > width || box[1] < 0 || box[3] > height) return;
    if (taken.some((t) => box[0] < t[2] && t[0] < box[2] && box[1] < t[3] && t[1] < box[3])) return;
    taken.push(box);
    context.lineWidth = 4;
    context.strokeStyle = style("--map-paper");
    context.lineJoin = "round";
    context.strokeText(text, left, cy);
    context.fillStyle = ink;
    context.fillText(text, left, cy);
  };
  const shorten = (text, most) => (text.length > most ? `${text.slice(0, most - 1).trimEnd()}…` : text);
  const paint = (pane) => {
    const { which, context, pixels, image } = pane;
    const [xs, ys] = points[which];
    pixels.fill(paper);
    stamp(pane, xs, ys, radius * 0.8 * ratio, 0, () => faint);
    stamp(pane, xs, ys, radius * ratio, 1, (i) => palette[shade[i]]);
    context.putImageData(image, 0, 0);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.textBaseline = "middle";
    const taken = [];
    for (const [i] of found[which]?.nearest ?? []) ring(context, x(which, i), y(which, i), radius + 2, 1.5);
    for (const i of new Set([anchor, here])) if (i >= 0) ring(context, x(which, i), y(which, i), radius + 3);
    if (query && found.length) {
      const [qx, qy] = [query.at[which][0] * view.scale + view.left, query.at[which][1] * view.scale + view.top];
      ring(context, qx, qy, 6, 3);
      ring(context, qx, qy, 11, 1.5);
      write(context, taken, shorten(query.text, 40), qx + 8, qy, { bold: true, beside: true });
    }
    const inView = [];
    for (let i = 0; i < count && inView.length <= 60; i++) {
      const [cx, cy] = [x(which, i), y(which, i)];
      if (lit[i] && cx > 0 && cy > 0 && cx < width && cy < height) inView.push([i, cx, cy]);
    }
    if (inView.length <= 60) for (const [i, cx, cy] of inView) write(context, taken, shorten(texts[i], 44), cx, cy, { beside: true });
    else for (const { text, fine, at } of labels) {
      if (fine && view.scale < 3 * fit()) continue;
      write(context, taken, text, at[which][0] * view.scale + view.left, at[which][1] * view.scale + view.top, { bold: true });
    }
    if (drawing && drawing.pane === pane && drawing.path.length > 1) {
      context.setLineDash([5, 4]);
      context.lineWidth = 1.5;
      context.strokeStyle = ink;
      context.beginPath();
      drawing.path.forEach(([px, py], k) => (k ? context.lineTo(px, py) : context.moveTo(px, py)));
      context.closePath();
      context.stroke();
      context.setLineDash([]);
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
  };
  let frame = 0;
  const redraw = () => {
    if (frame || !width) return;
    frame = requestAnimationFrame(() => {
      frame = 0;
      panes.forEach(paint);
    });
  };

  // The view: one for both maps
  const bounds = points.map(([xs, ys]) => {
    const of = (values) => values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]);
    return [...of(xs), ...of(ys)];
  });
  const [least, most, lowest, highest] = [0, 1, 2, 3].map((k) => Math[k % 2 ? "max" : "min"](...bounds.map((b) => b[k])));
  // Both axes on one scale: as far apart as they look.
  const fit = () => Math.min(Math.max(9, width - 4 * radius - 30) / (most - least || 1), Math.max(9, height - 4 * radius - 30) / (highest - lowest || 1));
  const whole = () => {
    view.scale = fit();
    view.left = width / 2 - ((least + most) / 2) * view.scale;
    view.top = height / 2 - ((lowest + highest) / 2) * view.scale;
    redraw();
  };
  const zoomBy = (factor, cx = width / 2, cy = height / 2) => {
    const scale = Math.min(fit() * 500, view.scale * factor);
    if (scale <= fit()) return whole();
    view.left = cx - ((cx - view.left) / view.scale) * scale;
    view.top = cy - ((cy - view.top) / view.scale) * scale;
    view.scale = scale;
    redraw();
  };
  // On screens of many pixels, many dots are drawn in fewer while they move.
  const sharpen = (still) => {
    const most = Math.min(2, devicePixelRatio || 1);
    ratio = still || count <= 10000 ? most : 1;
    for (const pane of panes) {
      const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
      if (pane.image && pane.canvas.width === wide && pane.canvas.height === high) continue;
      [pane.canvas.width, pane.canvas.height] = [wide, high];
      pane.image = pane.context.createImageData(wide, high);
      pane.pixels = new Uint32Array(pane.image.data.buffer);
    }
    redraw();
  };
  const resize = () => {
    const box = panes[0].canvas.getBoundingClientRect();
    if (!box.width || (box.width === width && box.height === height)) return;
    const atWhole = !width || view.scale <= fit() * 1.001;
    [width, height] = [box.width, box.height];
    sharpen(true);
    restyle();
    if (atWhole) whole();
    else redraw();
  };

  // Pointing
  const point = (i, pane = panes[0]) => {
    here = i;
    tip.hidden = i < 0;
    if (i >= 0) {
      const [outer, inner] = [root.getBoundingClientRect(), pane.canvas.getBoundingClientRect()];
      tip.textContent = shorten(texts[i], 300);
      const cx = inner.left - outer.left + x(pane.which, i);
      const right = cx > outer.width / 2;
      tip.style.left = right ? "auto" : `${cx + 14}px`;
      tip.style.right = right ? `${outer.width - cx + 14}px` : "auto";
      tip.style.top = `${inner.top - outer.top + y(pane.which, i) + 10}px`;
    }
    root.dataset.here = i;
    redraw();
  };
  const nearest = (which, cx, cy, reach) => {
    let [best, least] = [-1, reach * reach];
    for (let i = 0; i < count; i++) {
      const [dx, dy] = [x(which, i) - cx, y(which, i) - cy];
      const distance = (dx * dx + dy * dy) * (lit[i] ? 1 : 4);
      if (distance < least) [best, least] = [i, distance];
    }
    return best;
  };
  const useTool = (name) => {
    tool = name;
    tools.forEach(([each], k) => toolButtons[k].setAttribute("aria-pressed", String(each === name)));
    panes.forEach(({ canvas }) => { canvas.dataset.tool = name; });
  };
  const select = (pane, path) => {
    const [xs, ys] = points[pane.which];
    const corners = path.map(([px, py]) => [(px - view.left) / view.scale, (py - view.top) / view.scale]);
    chosen = new Uint8Array(count);
    for (let i = 0; i < count; i++) {
      if (!wanted[i] || off.has(shade[i])) continue;
      let inside = false;
      for (let a = 0, b = corners.length - 1; a < corners.length; b = a++) {
        const [ax, ay] = corners[a];
        const [bx, by] = corners[b];
        if (ay > ys[i] !== by > ys[i] && xs[i] < ((bx - ax) * (ys[i] - ay)) / (by - ay) + ax) inside = !inside;
      }
      chosen[i] = inside ? 1 : 0;
    }
    [anchor, found] = [-1, []];
    showChosen();
  };
  for (const pane of panes) {
    const { canvas } = pane;
    const fingers = new Map();
    const at = (e) => {
      const box = canvas.getBoundingClientRect();
      return [e.clientX - box.left, e.clientY - box.top];
    };
    let moved = 0;
    canvas.addEventListener("pointerdown", (e) => {
      canvas.setPointerCapture(e.pointerId);
      fingers.set(e.pointerId, at(e));
      moved = 0;
      drawing = tool === "move" || fingers.size > 1 ? null : { pane, path: [at(e)] };
    });
    canvas.addEventListener("pointermove", (e) => {
      const now = at(e);
      const before = fingers.get(e.pointerId);
      if (!before) {
        const i = nearest(pane.which, ...now, 12);
        if (i !== here) point(i, pane);
        return;
      }
      const others = [...fingers].filter(([id]) => id !== e.pointerId).map(([, place]) => place);
      moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
      if (others.length) {
        const apart = (place) => Math.hypot(place[0] - others[0][0], place[1] - others[0][1]) || 1;
        zoomBy(apart(now) / apart(before), ...others[0]);
      } else if (drawing) {
        const [first] = drawing.path;
        drawing.path = tool === "box" ? [first, [now[0], first[1]], now, [first[0], now[1]]] : [...drawing.path, now];
      } else if (moved > 4) {
        view.left += now[0] - before[0];
        view.top += now[1] - before[1];
        tip.hidden = true;
      }
      if (moved > 4 || others.length) fingers.set(e.pointerId, now);
      sharpen(drawing !== null);
    });
    const up = (e) => {
      if (!fingers.delete(e.pointerId)) return;
      sharpen(true);
      const path = drawing?.path ?? [];
      drawing = null;
      if (e.type === "pointercancel") return redraw();
      if (path.length > 2) return select(pane, path);
      if (moved > 4) return;
      const i = nearest(pane.which, ...at(e), 16);
      if (i >= 0) choose(i);
      else if (found.length || chosen) clear();
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("pointerleave", () => { if (!fingers.size) point(-1, pane); });
    canvas.addEventListener("wheel", (e) => {
      // Without focus the wheel goes on scrolling the page.
      if (document.activeElement !== canvas) return;
      e.preventDefault();
      zoomBy(e.deltaY < 0 ? 1.18 : 0.85, ...at(e));
    }, { passive: false });
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    canvas.addEventListener("keydown", (e) => {
      if (e.key === "Enter" && here >= 0) return choose(here);
      if (e.key === "+" || e.key === "-") return zoomBy(e.key === "+" ? 1.4 : 1 / 1.4);
      if (e.key === "Escape") return clear();
      const way = ways[e.key];
      if (!way) return;
      e.preventDefault();
      if (here < 0) return point(nearest(pane.which, width / 2, height / 2, 1e9), pane);
      const [cx, cy] = [x(pane.which, here), y(pane.which, here)];
      let [best, least] = [-1, Infinity];
      for (let i = 0; i < count; i++) {
        const [dx, dy] = [x(pane.which, i) - cx, y(pane.which, i) - cy];
        const along = dx * way[0] + dy * way[1];
        const cost = along + 3 * Math.abs(dx * way[1] + dy * way[0]);
        if (lit[i] && along > 0.5 && cost < least) [best, least] = [i, cost];
      }
      if (best >= 0) point(best, pane);
    });
  }

  useTool("move");
  recolour();
  clear();
  new ResizeObserver(resize).observe(panes[0].canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { restyle(); redraw(); });
  resize();
  // Where a dot is on the canvas, for whoever drives the page by program.
  root.simcse = { view, at: (i) => [x(0, i), y(0, i)] };
};
