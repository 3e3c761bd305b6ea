// Chapter 2's one sample point, to be dragged over an image of a few pixels. The page holds a still picture of it, and
// the image and the place to begin (data-touch), as stnlib/plotting/touch/sample.py draws them: the same numbers, the
// same drawings, the same words.
"use strict";

(() => {
  const KERNELS = ["nearest", "bilinear", "bicubic"];
  const PADDINGS = ["zeros", "border", "reflection", "wrap", "mirror", "fill"];
  const FILL = 5, BEYOND = 3, CELL = 24, SUM = 240, ARROW = 0.3, RIM = 7, BRIGHTEST = 9;
  const A = -0.75; // the bicubic kernel's slope at distance 1, as in PyTorch
  const FINE = 8; // readings a pixel in the picture of what is read everywhere

  const pixelsPerUnit = (size, alignCorners) => (alignCorners ? size - 1 : size) / 2;
  const normalise = (position, size, alignCorners) => {
    const unit = pixelsPerUnit(size, alignCorners);
    return unit === 0 ? 0 : (position - (size - 1) / 2) / unit;
  };
  const unnormalise = (u, size, alignCorners) => u * pixelsPerUnit(size, alignCorners) + (size - 1) / 2;

  // The padded image repeats after so many pixels.
  function period(size, padding, alignCorners) {
    if (padding === "wrap") return size;
    return padding === "reflection" && !alignCorners ? 2 * size : Math.max(2 * (size - 1), 1);
  }
  const remainder = (m, n) => ((m % n) + n) % n;

  // Which pixel stands at m along an axis; null: none.
  function extend(m, size, padding, alignCorners) {
    if (padding === "zeros" || padding === "fill") return m >= 0 && m < size ? m : null;
    if (padding === "border") return Math.min(Math.max(m, 0), size - 1);
    const repeat = period(size, padding, alignCorners);
    m = remainder(m, repeat);
    return m < size ? m : repeat === 2 * size ? repeat - 1 - m : repeat - m;
  }

  function stands(image, column, row, padding, alignCorners) {
    const n = extend(row, image.length, padding, alignCorners);
    const m = extend(column, image[0].length, padding, alignCorners);
    return n === null || m === null ? (padding === "fill" ? FILL : 0) : image[n][m];
  }

  // A position so far out that x + 1 may be x is brought to one that reads the same.
  function tame(x, size, padding, alignCorners) {
    const far = 2 ** 52;
    if (["zeros", "fill", "border"].includes(padding)) return Math.min(Math.max(x, -far), far);
    if (!Number.isFinite(x)) return NaN; // infinity has no mirror image
    return Math.abs(x) < far ? x : remainder(x, period(size, padding, alignCorners));
  }

  // The pixels that are read along an axis, their weights, and the weights' slopes: at a knot those beyond it.
  function taps(x, kernel) {
    const below = Math.floor(x), t = x - below;
    if (kernel === "nearest") { // halves to the even pixel
      const up = t > 0.5 || (t === 0.5 && remainder(below, 2) === 1);
      return { pixels: [below + (up ? 1 : 0)], weights: [1], slopes: [0] };
    }
    if (kernel === "bilinear") return { pixels: [below, below + 1], weights: [1 - t, t], slopes: [-1, 1] };
    const near = (r) => ((A + 2) * r - (A + 3)) * r * r + 1, far = (r) => ((A * r - 5 * A) * r + 8 * A) * r - 4 * A;
    const nearSlope = (r) => (3 * (A + 2) * r - 2 * (A + 3)) * r, farSlope = (r) => (3 * A * r - 10 * A) * r + 8 * A;
    return {
      pixels: [below - 1, below, below + 1, below + 2],
      weights: [far(1 + t), near(t), near(1 - t), far(2 - t)],
      slopes: [farSlope(1 + t), nearSlope(t), -nearSlope(1 - t), -farSlope(2 - t)],
    };
  }

  function read(image, x, y, kernel, padding, alignCorners) {
    x = tame(x, image[0].length, padding, alignCorners);
    y = tame(y, image.length, padding, alignCorners);
    const h = taps(x, kernel), v = taps(y, kernel);
    const unknown = Number.isNaN(x + y); // as soon as one is, so is what is read
    const values = unknown ? [] : v.pixels.map((n) => h.pixels.map((m) => stands(image, m, n, padding, alignCorners)));
    let value = 0, gx = 0, gy = 0;
    values.forEach((row, i) => row.forEach((u, j) => {
      value += h.weights[j] * v.weights[i] * u;
      gx += h.slopes[j] * v.weights[i] * u;
      gy += h.weights[j] * v.slopes[i] * u;
    }));
    return {
      columns: h.pixels, rows: v.pixels, across: h.weights, down: v.weights, values,
      value: unknown ? NaN : value, slope: unknown ? [NaN, NaN] : [gx, gy],
    };
  }

  const round = (value, unit) => Math.floor(value * unit + 0.5 + 1e-6) / unit;
  const number = (value) => round(value, 100).toFixed(2).replace("-", "−");

  function sentence(image, x, y, kernel, padding, alignCorners) {
    const { columns, rows, value, slope: [gx, gy] } = read(image, x, y, kernel, padding, alignCorners);
    const height = image.length, width = image[0].length, count = columns.length * rows.length;
    const within = (pixels, size) => pixels.filter((m) => m >= 0 && m < size).length;
    const inside = within(columns, width) * within(rows, height);
    let said = `At x = ${number(x)}, y = ${number(y)} in pixels, or ${number(normalise(x, width, alignCorners))}, ` +
      `${number(normalise(y, height, alignCorners))} in normalised coordinates, ` +
      `${kernel} reads ${count} pixel${count > 1 ? "s" : ""}`;
    if (inside < count) said += count > 1 ? `, ${count - inside} of them outside the image` : " outside the image";
    said += `. The value is ${number(value)}. `;
    if (kernel === "nearest") {
      said += "Its slope is 0 everywhere: there is no arrow.";
      if (remainder(x, 1) === 0.5 || remainder(y, 1) === 0.5)
        said += " Halfway between two pixels the even one counts.";
      return said;
    }
    const [ux, uy] = [width, height].map((size) => pixelsPerUnit(size, alignCorners));
    said += `Its slope along x is ${number(gx)} a pixel, along y ${number(gy)}; ` +
      `in normalised coordinates ${number(gx * ux)} and ${number(gy * uy)}.`;
    if (Math.max(Math.abs(gx), Math.abs(gy)) < 1e-9) said += " No slope, no arrow.";
    const back = kernel === "bilinear" ? 0.5 : 0; // the slope stays the same up to the knot before
    for (const [name, axis, position] of [["x", 0, x], ["y", 1, y]]) {
      const shifted = axis === 0 ? [x - back, y] : [x, y - back];
      const before = read(image, ...shifted, kernel, padding, alignCorners).slope[axis];
      if (position % 1 === 0 && Math.abs(before - [gx, gy][axis]) > 1e-9)
        said += ` ${name} is at a knot: this is the slope beyond it, and before it the slope is ${number(before)}.`;
    }
    return said;
  }

  const unit = (position) => (position + BEYOND + 0.5) * CELL; // where a pixel lies in the drawing
  const at = (value) => String(round(value, 100) + 0);

  function cells(image, padding, alignCorners) {
    const height = image.length, width = image[0].length;
    let drawn = "";
    for (let n = -BEYOND; n < height + BEYOND; n++)
      for (let m = -BEYOND; m < width + BEYOND; m++) {
        const value = stands(image, m, n, padding, alignCorners), shade = Math.floor((255 * value) / BRIGHTEST + 0.5);
        const inside = m >= 0 && m < width && n >= 0 && n < height;
        const kind = inside ? (value > BRIGHTEST / 2 ? "light" : "dark") : "out";
        const left = (m + BEYOND) * CELL, top = (n + BEYOND) * CELL;
        drawn += `<g class="${kind}"><rect x="${left}" y="${top}" width="${CELL}" height="${CELL}" ` +
          `fill="rgb(${shade},${shade},${shade})"></rect>` +
          `<text x="${left + CELL / 2}" y="${top + 16}">${value}</text></g>`;
      }
    // The image, and where the normalised coordinates run from -1 to 1.
    for (const [kind, less] of [["frame", 0], ["range", alignCorners ? 1 : 0]]) {
      const edge = at((BEYOND + less / 2) * CELL);
      drawn += `<rect class="${kind}" x="${edge}" y="${edge}" ` +
        `width="${(width - less) * CELL}" height="${(height - less) * CELL}"></rect>`;
    }
    return drawn;
  }

  // A weight as a rectangle: its sides are its two factors.
  function area(x, y, wide, high, side) {
    const weight = wide * high;
    if (Math.abs(weight) < 1e-9) return "";
    wide = Math.abs(wide) * side;
    high = Math.abs(high) * side;
    return `<rect class="${weight > 0 ? "plus" : "minus"}" x="${at(x - wide / 2)}" y="${at(y - high / 2)}" ` +
      `width="${at(wide)}" height="${at(high)}"></rect>`;
  }

  function arrow(x, y, dx, dy, length) {
    const tip = [x + length * dx, y + length * dy], head = Math.min(7, 0.6 * length);
    const [one, other] = [1, -1].map((s) =>
      `${at(tip[0] - head * (dx + s * 0.6 * dy))} ${at(tip[1] - head * (dy - s * 0.6 * dx))}`);
    const end = tip.map(at).join(" "), d = `M${at(x)} ${at(y)}L${end}M${one}L${end}L${other}`;
    return `<path class="halo" d="${d}"></path><path class="slope" d="${d}"></path>`;
  }

  function marks(image, x, y, kernel, padding, alignCorners) {
    const { columns, rows, across, down, slope: [gx, gy] } = read(image, x, y, kernel, padding, alignCorners);
    let drawn = "";
    rows.forEach((n, i) => columns.forEach((m, j) => {
      // Bilinear: what a square as large as a pixel, around the point, covers of each. Else in the pixel's middle.
      const centre = kernel === "bilinear" ? [(m + x) / 2, (n + y) / 2] : [m, n];
      drawn += area(unit(centre[0]), unit(centre[1]), across[j], down[i], CELL);
    }));
    const length = Math.hypot(gx, gy);
    if (length > 1e-9) {
      const dx = gx / length, dy = gy / length;
      drawn += arrow(unit(x) + RIM * dx, unit(y) + RIM * dy, dx, dy, ARROW * CELL * length);
    }
    return drawn;
  }

  function total(image, x, y, kernel, padding, alignCorners) {
    const { across, down, values, value } = read(image, x, y, kernel, padding, alignCorners);
    const side = SUM / across.length, many = across.length === 4, kind = many ? "many" : "few";
    let drawn = "";
    values.forEach((row, i) => row.forEach((u, j) => {
      const [left, top] = [j * side, i * side], [x, y] = [left + side / 2, top + side / 2];
      drawn += `<rect class="frame" x="${left}" y="${top}" width="${side}" height="${side}"></rect>` +
        area(x, y, across[j], down[i], side) +
        `<text class="${kind}" x="${x}" y="${top + side - 6}">${u} × ${number(across[j] * down[i])}</text>`;
    }));
    return `${drawn}<text class="few" x="${SUM / 2}" y="${SUM + 20}">sum = ${number(value)}</text>`;
  }

  // What is read everywhere, as the address of a picture.
  function everywhere(image, kernel, padding, alignCorners) {
    const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
    canvas.width = (image[0].length + 2 * BEYOND) * FINE;
    canvas.height = (image.length + 2 * BEYOND) * FINE;
    const shown = context.createImageData(canvas.width, canvas.height);
    const place = (k) => (k + 0.5) / FINE - BEYOND - 0.5;
    for (let i = 0, k = 0; i < canvas.height; i++)
      for (let j = 0; j < canvas.width; j++, k += 4) {
        const { value } = read(image, place(j), place(i), kernel, padding, alignCorners);
        shown.data.fill((255 * value) / BRIGHTEST, k, k + 3);
        shown.data[k + 3] = 255;
      }
    context.putImageData(shown, 0, 0);
    return canvas.toDataURL();
  }

  const svgElement = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [attribute, value] of Object.entries(attributes)) element.setAttribute(attribute, value);
    return element;
  };

  function start(picture) {
    const told = JSON.parse(picture.dataset.touch), { image } = told;
    const [svg, sum] = picture.querySelectorAll("svg"), says = picture.querySelector(".touch-says");
    const part = (name) => svg.querySelector(`.${name}`), handle = part("handle");
    const most = { x: image[0].length - 1 + BEYOND, y: image.length - 1 + BEYOND };
    const first = { x: told.x, y: told.y, kernel: "bilinear", padding: "zeros", alignCorners: false, shown: "pixels" };
    let state = { ...first }, drawn = null;

    const controls = {};

    function draw() {
      const { x, y, kernel, padding, alignCorners, shown } = state, all = [image, x, y, kernel, padding, alignCorners];
      const below = JSON.stringify([kernel, padding, alignCorners, shown]);
      if (below !== drawn) { // what lies below the point
        part("cells").innerHTML = cells(image, padding, alignCorners);
        part("cells").classList.toggle("bare", shown !== "pixels");
        everything.setAttribute("visibility", shown === "pixels" ? "hidden" : "visible");
        if (shown !== "pixels") everything.setAttribute("href", everywhere(image, kernel, padding, alignCorners));
        drawn = below;
      }
      part("marks").innerHTML = marks(...all);
      sum.innerHTML = total(...all);
      handle.setAttribute("transform", `translate(${at(unit(x))} ${at(unit(y))})`);
      handle.setAttribute("aria-valuenow", x);
      handle.setAttribute("aria-valuetext", `x ${number(x)}, y ${number(y)}`);
      for (const [name, control] of Object.entries(controls)) control.value = String(state[name]);
      for (const name of ["x", "y"]) controls[name].previousSibling.textContent = `${name} = ${number(state[name])}`;
      says.textContent = sentence(...all);
    }

    // A position goes in twentieths of a pixel, so that knots can be met.
    const tidy = (name, value) => Math.min(Math.max(Math.round(20 * value) / 20, -BEYOND), most[name]);
    const set = (changes) => { state = { ...state, ...changes }; draw(); };
    const move = (x, y) => set({ x: tidy("x", x), y: tidy("y", y) });
    const moveTo = (event) => {
      const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      move(x / CELL - BEYOND - 0.5, y / CELL - BEYOND - 0.5);
    };

    const size = { width: (most.x + 1 + BEYOND) * CELL, height: (most.y + 1 + BEYOND) * CELL };
    const everything = svgElement("image", { ...size, visibility: "hidden" });
    svg.prepend(everything);
    handle.prepend(svgElement("circle", { class: "target", r: 18 }));
    for (const [attribute, value] of Object.entries({
      tabindex: 0, role: "slider", "aria-label": "sample point", "aria-valuemin": -BEYOND, "aria-valuemax": most.x,
    })) handle.setAttribute(attribute, value);
    let held = false;
    handle.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false }); // no scrolling
    handle.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      event.preventDefault();
      handle.focus({ preventScroll: true });
      handle.setPointerCapture(event.pointerId);
      held = true;
    });
    handle.addEventListener("pointermove", (event) => { if (held) moveTo(event); });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
      handle.addEventListener(end, () => { held = false; });
    svg.addEventListener("click", (event) => { if (!handle.contains(event.target)) moveTo(event); });
    handle.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!way || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault(); // the page does not scroll, nor turn
      event.stopPropagation();
      move(state.x + 0.1 * way[0], state.y + 0.1 * way[1]);
    });

    const bar = document.createElement("div");
    bar.className = "touch-bar";
    bar.setAttribute("role", "group");
    bar.setAttribute("aria-label", "How the point is read");
    const labelled = (text, control) => {
      const label = document.createElement("label"), name = document.createElement("span");
      name.textContent = text;
      label.append(name, control);
      bar.append(label);
    };
    const options = {
      kernel: ["kernel", KERNELS], padding: ["padding", PADDINGS], alignCorners: ["align_corners", [false, true]],
      shown: ["picture", ["pixels", "what is read"]],
    };
    for (const [name, [text, values]] of Object.entries(options)) {
      const select = (controls[name] = document.createElement("select"));
      for (const value of values) {
        const said = { false: "False", true: "True", fill: `fill, ${FILL}` }[value] || value;
        select.append(new Option(said, value));
      }
      select.addEventListener("change", () => set({ [name]: name === "alignCorners" ? select.value === "true" : select.value }));
      labelled(text, select);
    }
    for (const name of ["x", "y"]) {
      const input = (controls[name] = document.createElement("input"));
      Object.assign(input, { type: "range", min: -BEYOND, max: most[name], step: 0.05 });
      input.addEventListener("input", () => set({ [name]: tidy(name, Number(input.value)) }));
      labelled(name, input);
    }
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "back to the start";
    button.addEventListener("click", () => set(first));
    bar.append(button);
    svg.setAttribute("role", "group"); // no longer one image: its point is to be reached
    says.setAttribute("aria-live", "polite");
    says.before(bar);
    draw();
  }

  window.stnlib = window.stnlib || {};
  window.stnlib.sample = { normalise, unnormalise, pixelsPerUnit, read, sentence, cells, marks, total };
  const all = () => document.querySelectorAll(".touch-sample:not(.started)").forEach((picture) => {
    picture.classList.add("started"); // each figure of a page brings this script along
    start(picture);
  });
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", all);
  else all();
})();
