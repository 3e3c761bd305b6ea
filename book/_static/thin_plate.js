// Chapter 6's thin plate. The page holds a still picture of a bent grid on a photograph and of what it reads, and how
// far the sixteen control points are pulled (data-touch), as stnlib/plotting/touch/thin_plate.py draws them: the same
// lines, the same pixels, the same words.
"use strict";

(() => {
  const VIEW = 1.4, LATTICE = 33, LINE = 4, STEP = 0.05;
  const TINT = [217, 98, 43], SHARE = 0.6; // of what is folded
  const COUNT = 16, TERMS = COUNT + 3; // a bump for each control point, and a plane
  const CONTROL = Array.from({ length: COUNT }, (_, k) => [(2 * (k % 4)) / 3 - 1, (2 * Math.floor(k / 4)) / 3 - 1]);
  const PRESETS = { // where a control point is read
    flat: (x, y) => [x, y],
    turn: (x, y) => [0.8 * x - 0.3 * y, 0.3 * x + 0.8 * y],
    lens: (x, y) => (Math.abs(x) < 1 && Math.abs(y) < 1 ? [0.5 * x, 0.5 * y] : [x, y]),
    wave: (x, y) => [x + 0.15 * Math.sin(Math.PI * y), y],
    swap: (x, y) => (Math.abs(x) < 1 && Math.abs(y) < 1 ? [-x, y] : [x, y]),
  };
  const identity = () => CONTROL.flat();

  // The terms of the spline at (x, y), and their derivatives along x and along y: r² log r, 1, x, y.
  function terms(x, y, value, alongX, alongY) {
    for (let k = 0; k < COUNT; k++) {
      const dx = x - CONTROL[k][0], dy = y - CONTROL[k][1], square = dx * dx + dy * dy;
      const log = square === 0 ? 0 : Math.log(square);
      value[k] = 0.5 * square * log;
      alongX[k] = dx * (log + 1);
      alongY[k] = dy * (log + 1);
    }
    value.set([1, x, y], COUNT);
    alongX.set([0, 1, 0], COUNT);
    alongY.set([0, 0, 1], COUNT);
  }

  // The first columns of the inverse of S: TERMS rows of COUNT. By Gauss and Jordan, with the largest pivot.
  const solution = (() => {
    const rows = [], [value, unused] = [new Float64Array(TERMS), new Float64Array(TERMS)];
    for (let k = 0; k < TERMS; k++) {
      const row = new Float64Array(TERMS + COUNT);
      if (k < COUNT) {
        terms(...CONTROL[k], value, unused, unused);
        row.set(value);
        row[TERMS + k] = 1;
      } else CONTROL.forEach((point, n) => { row[n] = [1, ...point][k - COUNT]; });
      rows.push(row);
    }
    for (let k = 0; k < TERMS; k++) {
      let best = k;
      for (let n = k; n < TERMS; n++) if (Math.abs(rows[n][k]) > Math.abs(rows[best][k])) best = n;
      [rows[k], rows[best]] = [rows[best], rows[k]];
      const pivot = rows[k][k];
      rows[k] = rows[k].map((v) => v / pivot);
      for (let n = 0; n < TERMS; n++) {
        const factor = rows[n][k];
        if (n !== k && factor !== 0) rows[n] = rows[n].map((v, m) => v - factor * rows[k][m]);
      }
    }
    return rows.map((row) => row.subarray(TERMS));
  })();

  // How much points (x and y, one after another) follow each control point, and how that changes along x and y.
  function follow(points) {
    const count = points.length / 2, parts = Array.from({ length: 3 }, () => new Float64Array(TERMS));
    const bases = parts.map(() => new Float64Array(count * COUNT));
    for (let p = 0; p < count; p++) {
      terms(points[2 * p], points[2 * p + 1], ...parts);
      for (let part = 0; part < 3; part++)
        for (let n = 0; n < TERMS; n++) {
          const term = parts[part][n], row = solution[n];
          for (let k = 0; k < COUNT; k++) bases[part][p * COUNT + k] += term * row[k];
        }
    }
    return bases;
  }

  // One of these, times where the control points are read.
  function times(basis, theta) {
    const count = basis.length / COUNT, moved = new Float64Array(2 * count);
    for (let p = 0, at = 0; p < count; p++) {
      let x = 0, y = 0;
      for (let k = 0; k < COUNT; k++, at++) {
        x += basis[at] * theta[2 * k];
        y += basis[at] * theta[2 * k + 1];
      }
      moved[2 * p] = x;
      moved[2 * p + 1] = y;
    }
    return moved;
  }

  function determinants([, alongX, alongY], theta) {
    const dx = times(alongX, theta), dy = times(alongY, theta), found = new Float64Array(dx.length / 2);
    for (let p = 0; p < found.length; p++) found[p] = dx[2 * p] * dy[2 * p + 1] - dx[2 * p + 1] * dy[2 * p];
    return found;
  }

  function energy(theta) {
    let sum = 0;
    for (let k = 0; k < COUNT; k++)
      for (let n = 0; n < COUNT; n++)
        sum += solution[k][n] * (theta[2 * k] * theta[2 * n] + theta[2 * k + 1] * theta[2 * n + 1]);
    return 8 * Math.PI * sum;
  }

  // The centres of size x size pixels from -1 to 1, or the corners of cells from edge to edge.
  function places(size, edges) {
    const at = (i) => (edges ? (2 * i) / (size - 1) - 1 : (2 * i + 1) / size - 1);
    const found = new Float64Array(2 * size * size);
    for (let k = 0; k < size * size; k++) found.set([at(k % size), at(Math.floor(k / size))], 2 * k);
    return found;
  }

  // Read an image (size x size pixels, one after another, the channels of each together) there: bilinear, 0 outside.
  function sample(image, size, channels, where) {
    const output = new Float64Array((where.length / 2) * channels);
    for (let k = 0; 2 * k < where.length; k++) {
      const x = (where[2 * k] * size) / 2 + (size - 1) / 2, y = (where[2 * k + 1] * size) / 2 + (size - 1) / 2;
      const m = Math.floor(x), n = Math.floor(y), right = x - m, low = y - n;
      for (let corner = 0; corner < 4; corner++) {
        const dx = corner & 1, dy = corner >> 1, column = m + dx, row = n + dy;
        if (column < 0 || row < 0 || column >= size || row >= size) continue;
        const weight = (dx ? right : 1 - right) * (dy ? low : 1 - low), from = (row * size + column) * channels;
        for (let channel = 0; channel < channels; channel++)
          output[k * channels + channel] += weight * image[from + channel];
      }
    }
    return output;
  }

  const fixed = (value, digits) =>
    (Math.floor(value * 10 ** digits + 0.5) / 10 ** digits).toFixed(digits).replace("-", "−");

  function sentence(theta, det) {
    let [least, most, negative, count] = [Infinity, -Infinity, 0, 0];
    for (const d of det) {
      least = Math.min(least, d);
      most = Math.max(most, d);
      if (d < 0) negative++;
    }
    CONTROL.forEach(([x, y], k) => {
      if (Math.max(Math.abs(theta[2 * k] - x), Math.abs(theta[2 * k + 1] - y)) > 0.005) count++;
    });
    const said = `${count} of 16 control points ${count === 1 ? "is" : "are"} pulled, and the bending energy is ` +
      `${fixed(Math.max(energy(theta), 0), 2)}. The determinant of the Jacobian is between ${fixed(least, 2)} and ` +
      fixed(most, 2);
    if (least >= 0) return `${said}, so nothing folds.`;
    return `${said}. It is negative, and the map turned inside out, at ${fixed((100 * negative) / det.length, 1)} % ` +
      "of the output's pixels: the red ones.";
  }

  // The red, green and blue of an image in the page.
  async function pixels(address, size) {
    const image = new Image(), canvas = document.createElement("canvas");
    image.src = address;
    await image.decode();
    canvas.width = canvas.height = size;
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, size, size);
    return Float64Array.from({ length: 3 * size * size }, (_, k) => data[4 * Math.floor(k / 3) + (k % 3)]);
  }

  async function start(picture) {
    const told = JSON.parse(picture.dataset.touch), { size } = told;
    const svg = picture.querySelector("svg"), still = picture.querySelector("img.read");
    const says = picture.querySelector(".touch-says"), path = (name) => svg.querySelector(`path.${name}`);
    const image = await pixels(svg.querySelector("image").getAttribute("href"), size);
    const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
    canvas.width = canvas.height = size;
    canvas.className = "read";
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", still.alt);
    still.replaceWith(canvas);
    const shown = context.createImageData(size, size);

    // B never changes: it is made once for the output's pixels, the grid that is drawn, and its cells' centres.
    const cells = LATTICE - 1, output = follow(places(size, false));
    const [lattice] = follow(places(LATTICE, true)), middles = follow(places(cells, false));
    const home = identity(), begin = home.map((v, k) => v + told.pull[k]);
    let pulled = begin.slice(), strength = 1; // where the control points are read at strength 1
    const theta = () => home.map((v, k) => Math.min(Math.max(v + strength * (pulled[k] - v), -VIEW), VIEW));

    function draw() {
      const now = theta(), moved = times(lattice, now);
      const text = (x, y) => `${x.toFixed(4)} ${y.toFixed(4)}`;
      const node = (i, j) => text(moved[2 * (i * LATTICE + j)], moved[2 * (i * LATTICE + j) + 1]);
      let lines = "", folds = "", pulls = "";
      for (let k = 0; k < LATTICE; k += LINE)
        for (const at of [(n) => node(k, n), (n) => node(n, k)])
          lines += "M" + Array.from({ length: LATTICE }, (_, n) => at(n)).join("L");
      determinants(middles, now).forEach((det, p) => {
        const i = Math.floor(p / cells), j = p % cells;
        if (det < 0) folds += `M${node(i, j)}L${node(i, j + 1)}L${node(i + 1, j + 1)}L${node(i + 1, j)}z`;
      });
      handles.forEach((element, k) => {
        const [x, y] = [now[2 * k], now[2 * k + 1]];
        pulls += `M${text(...CONTROL[k])}L${text(x, y)}`;
        element.setAttribute("transform", `translate(${text(x, y)})`);
        element.setAttribute("aria-valuenow", x.toFixed(2));
        element.setAttribute("aria-valuetext", `x ${fixed(x, 2)}, y ${fixed(y, 2)}`);
      });
      const drawn = { halo: lines, grid: lines, folds, pulls };
      for (const name in drawn) path(name).setAttribute("d", drawn[name]);

      const read = sample(image, size, 3, times(output[0], now)), det = determinants(output, now), { data } = shown;
      for (let k = 0; k < size * size; k++) {
        const share = det[k] < 0 ? SHARE : 0;
        for (let channel = 0; channel < 3; channel++)
          data[4 * k + channel] = (1 - share) * read[3 * k + channel] + share * TINT[channel];
        data[4 * k + 3] = 255;
      }
      context.putImageData(shown, 0, 0);
      slider.value = strength;
      number.textContent = fixed(strength, 2);
      says.textContent = sentence(now, det);
    }

    function move(k, x, y) { // what is seen becomes strength 1
      pulled = theta();
      strength = 1;
      const held = [x, y].map((v) => Math.round(100 * Math.min(Math.max(v, -VIEW), VIEW)) / 100);
      [pulled[2 * k], pulled[2 * k + 1]] = held;
      draw();
    }

    const handles = [...svg.querySelectorAll(".handle")];
    handles.forEach((element, k) => {
      let held = false;
      const target = document.createElementNS("http://www.w3.org/2000/svg", "circle");
      target.setAttribute("class", "target");
      target.setAttribute("r", 0.17);
      element.prepend(target);
      for (const [attribute, value] of Object.entries({
        tabindex: 0, role: "slider", "aria-label": `control point, row ${Math.floor(k / 4) + 1}, column ${(k % 4) + 1}`,
        "aria-valuemin": -VIEW, "aria-valuemax": VIEW,
      })) element.setAttribute(attribute, value);
      element.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false }); // no scrolling
      element.addEventListener("pointerdown", (event) => {
        if (event.button) return;
        event.preventDefault();
        element.focus({ preventScroll: true });
        element.setPointerCapture(event.pointerId);
        held = true;
      });
      element.addEventListener("pointermove", (event) => {
        if (!held) return;
        const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
        move(k, at.x, at.y);
      });
      for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
        element.addEventListener(end, () => { held = false; });
      element.addEventListener("keydown", (event) => {
        const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
        if (!way || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault(); // the page does not scroll, nor turn
        event.stopPropagation();
        const now = theta();
        move(k, now[2 * k] + STEP * way[0], now[2 * k + 1] + STEP * way[1]);
      });
    });

    const bar = document.createElement("div"), label = document.createElement("label");
    const slider = document.createElement("input"), number = document.createElement("output");
    bar.className = "touch-bar";
    bar.setAttribute("role", "group");
    bar.setAttribute("aria-label", "Bend the plate");
    Object.assign(slider, { type: "range", min: 0, max: 2, step: 0.05 });
    slider.addEventListener("input", () => {
      strength = Number(slider.value);
      draw();
    });
    label.append("strength", slider, number);
    bar.append(label);
    const bends = Object.entries(PRESETS).map(([name, send]) => [name, CONTROL.flatMap((point) => send(...point))]);
    for (const [name, numbers] of [...bends, ["back to the start", begin]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => {
        [pulled, strength] = [numbers.slice(), 1];
        draw();
      });
      bar.append(button);
    }
    svg.setAttribute("role", "group"); // no longer one image: its handles are to be reached
    says.setAttribute("aria-live", "polite");
    says.before(bar);
    draw();
  }

  window.stnlib = window.stnlib || {};
  window.stnlib.thin_plate = { PRESETS, identity, follow, times, determinants, energy, places, sample, sentence };
  const all = () => document.querySelectorAll(".touch-thin_plate:not(.started)").forEach((picture) => {
    picture.classList.add("started"); // each figure of a page brings this script along
    start(picture);
  });
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", all);
  else all();
})();
