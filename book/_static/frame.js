// Chapter 1's six numbers and a photograph. The page holds a still picture of a frame on a photograph and of what is
// read in it, and the numbers to begin with (data-touch), as stnlib/plotting/touch/frame.py draws them: the same lines,
// the same pixels, the same words.
"use strict";

(() => {
  const NAMES = ["a11", "a12", "tx", "a21", "a22", "ty"]; // theta, row by row
  const LIMITS = [2, 2, 1.5, 2, 2, 1.5]; // of each, either way
  const VIEW = 1.6, CELLS = 8, STEP = 0.05;
  const CORNERS = { "upper left": [-1, -1], "upper right": [1, -1], "lower right": [1, 1], "lower left": [-1, 1] };
  const [c, s] = [Math.cos(Math.PI / 6), Math.sin(Math.PI / 6)];
  const PRESETS = {
    identity: [1, 0, 0, 0, 1, 0], zoom: [0.5, 0, 0, 0, 0.5, 0], turn: [c, -s, 0, s, c, 0],
    shear: [1, 0.5, 0, 0, 1, 0], mirror: [-1, 0, 0, 0, 1, 0],
  };

  const point = ([a11, a12, tx, a21, a22, ty], x, y) => [tx + a12 * y + a11 * x, ty + a22 * y + a21 * x];
  const determinant = ([a11, a12, , a21, a22]) => a11 * a22 - a12 * a21;
  const centre = (i, size) => (2 * i + 1) / size - 1; // of a pixel

  // Where the pixels of an output are read: x and y of one after another, row by row.
  function grid(theta, size) {
    const places = new Float64Array(2 * size * size);
    for (let i = 0, at = 0; i < size; i++)
      for (let j = 0; j < size; j++, at += 2) {
        const [x, y] = point(theta, centre(j, size), centre(i, size));
        places[at] = x;
        places[at + 1] = y;
      }
    return places;
  }

  // Read an image (size x size pixels, one after another, the channels of each together) there: bilinear, 0 outside.
  function sample(image, size, channels, places) {
    const output = new Float64Array((places.length / 2) * channels);
    for (let k = 0; 2 * k < places.length; k++) {
      const x = (places[2 * k] * size) / 2 + (size - 1) / 2, y = (places[2 * k + 1] * size) / 2 + (size - 1) / 2;
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

  // The theta whose frame has one corner elsewhere: the opposite corner and the directions of the axes stay.
  // A flat frame has no two directions: "axes" is a theta that has them.
  function corner(theta, [cx, cy], [x, y], axes = theta) {
    const [a11, a12, , a21, a22] = axes, det = determinant(axes), [ox, oy] = point(theta, -cx, -cy);
    if (Math.abs(det) < 1e-9) return theta;
    const p = (cx * (a22 * (x - ox) - a12 * (y - oy))) / (2 * det); // by how much each axis grows
    const q = (cy * (a11 * (y - oy) - a21 * (x - ox))) / (2 * det);
    return [p * a11, q * a12, (x + ox) / 2, p * a21, q * a22, (y + oy) / 2];
  }

  const fixed = (value, digits) =>
    (Math.floor(value * 10 ** digits + 0.5) / 10 ** digits).toFixed(digits).replace("-", "−");
  const short = (value) => fixed(value, Math.abs(value) >= 0.1 ? 2 : 4);

  function sentence(theta, size) {
    const det = determinant(theta), area = Math.abs(det);
    const row = (k) => theta.slice(k, k + 3).map((v) => fixed(v, 2)).join(", ");
    let said = `θ has the rows ${row(0)} and ${row(3)}. `;
    if (area < 0.00005)
      said += "Its determinant is 0: the frame is flat, so the output shows nothing but what lies on a line, " +
        "and nothing can undo that.";
    else {
      said += `Its determinant is ${short(det)}: the frame has ${short(area)} times the photograph's area, ` +
        `so areas in the output are ${short(1 / area)} times those in the photograph.`;
      if (det < 0) said += " The minus says that it is a mirror image.";
    }
    const places = grid(theta, size);
    let outside = 0;
    for (let k = 0; k < places.length; k += 2)
      if (Math.max(Math.abs(places[k]), Math.abs(places[k + 1])) > 1) outside++;
    return `${said} ${fixed((100 * outside) / size ** 2, 0)} % of the output is read outside, and black.`;
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
    const says = picture.querySelector(".touch-says");
    const image = await pixels(svg.querySelector("image").getAttribute("href"), size);
    const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
    canvas.width = canvas.height = size;
    canvas.className = "read";
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", still.alt);
    still.replaceWith(canvas);
    const shown = context.createImageData(size, size);
    let theta = told.theta.slice(), axes = PRESETS.identity; // the last theta that was not flat

    const place = (x, y) => point(theta, x, y).map((v) => v.toFixed(3)).join(" ");
    const handles = [...svg.querySelectorAll(".handle")].map((element) => ({ element }));
    const corners = Object.entries(CORNERS);
    const tips = [["middle", 0, 0], ["end of the x axis", 1, 0], ["end of the y axis", 0, 1]];
    const inputs = [];

    function draw() {
      let lines = "";
      for (let i = 0; i <= CELLS; i++) {
        const at = (2 * i) / CELLS - 1;
        lines += `M${place(at, -1)}L${place(at, 1)}M${place(-1, at)}L${place(1, at)}`;
      }
      for (const path of svg.querySelectorAll(".grid, .halo")) path.setAttribute("d", lines);
      svg.querySelector(".axis.x").setAttribute("d", `M${place(0, 0)}L${place(1, 0)}`);
      svg.querySelector(".axis.y").setAttribute("d", `M${place(0, 0)}L${place(0, 1)}`);
      for (const { element, at } of handles) {
        const [x, y] = point(theta, ...at);
        const [seenX, seenY] = [x, y].map((v) => Math.min(Math.max(v, -VIEW), VIEW)); // what lies outside, at the edge
        element.setAttribute("transform", `translate(${seenX.toFixed(3)} ${seenY.toFixed(3)})`);
        element.setAttribute("aria-valuenow", seenX.toFixed(2));
        element.setAttribute("aria-valuetext", `x ${fixed(x, 2)}, y ${fixed(y, 2)}`);
      }
      inputs.forEach(({ input, output }, k) => {
        input.value = theta[k]; // to the nearest step
        input.setAttribute("aria-valuetext", fixed(theta[k], 2));
        output.textContent = fixed(theta[k], 2);
      });
      const output = sample(image, size, 3, grid(theta, size)), { data } = shown;
      for (let k = 0; k < size * size; k++) {
        for (let channel = 0; channel < 3; channel++) data[4 * k + channel] = output[3 * k + channel];
        data[4 * k + 3] = 255;
      }
      context.putImageData(shown, 0, 0);
      says.textContent = sentence(theta, size);
    }

    function set(next) {
      theta = next.map((v, k) => Math.min(Math.max(v, -LIMITS[k]), LIMITS[k]));
      if (Math.abs(determinant(theta)) > 1e-6) axes = theta;
      draw();
    }

    // A corner stops where a number does: were only that number held, the opposite corner would not stay.
    const stretch = (next) => { if (next.every((v, k) => Math.abs(v) <= LIMITS[k] + 1e-9)) set(next); };

    // What a handle does when it comes to (x, y); a corner, from the theta it was taken hold of at.
    const moves = {
      t: (x, y) => set([theta[0], theta[1], x, theta[3], theta[4], y]),
      x: (x, y) => set([x - theta[2], theta[1], theta[2], y - theta[5], theta[4], theta[5]]),
      y: (x, y) => set([theta[0], x - theta[2], theta[2], theta[3], y - theta[5], theta[5]]),
    };

    handles.forEach((handle, k) => {
      const { element } = handle, name = ["t", "x", "y"][k - corners.length];
      handle.at = name ? tips[k - corners.length].slice(1) : corners[k][1];
      let from = null; // theta, while the handle is held
      const move = (x, y) => (name ? moves[name](x, y) : stretch(corner(from || theta, handle.at, [x, y], axes)));
      const target = document.createElementNS("http://www.w3.org/2000/svg", "circle");
      target.setAttribute("class", "target");
      target.setAttribute("r", 0.18);
      element.prepend(target);
      for (const [attribute, value] of Object.entries({
        tabindex: 0, role: "slider", "aria-label": name ? tips[k - corners.length][0] : `${corners[k][0]} corner`,
        "aria-valuemin": -VIEW, "aria-valuemax": VIEW,
      })) element.setAttribute(attribute, value);
      element.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false }); // no scrolling
      element.addEventListener("pointerdown", (event) => {
        if (event.button) return;
        event.preventDefault();
        element.focus({ preventScroll: true });
        element.setPointerCapture(event.pointerId);
        from = theta;
      });
      element.addEventListener("pointermove", (event) => {
        if (!from) return;
        const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
        move(...[at.x, at.y].map((v) => Math.round(100 * Math.min(Math.max(v, -VIEW), VIEW)) / 100));
      });
      for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
        element.addEventListener(end, () => { from = null; });
      element.addEventListener("keydown", (event) => {
        const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
        if (!way || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault(); // the page does not scroll, nor turn
        event.stopPropagation();
        const [x, y] = point(theta, ...handle.at);
        move(x + STEP * way[0], y + STEP * way[1]);
      });
    });

    const [bar, rows, matrix] = Array.from({ length: 3 }, () => document.createElement("div"));
    bar.className = "touch-bar";
    bar.setAttribute("role", "group");
    bar.setAttribute("aria-label", "The six numbers of the frame");
    rows.className = "rows";
    matrix.className = "matrix";
    rows.append(matrix);
    NAMES.forEach((name, k) => {
      const label = document.createElement("label"), input = document.createElement("input");
      const letter = document.createElement("span"), output = document.createElement("span");
      letter.innerHTML = `${name[0]}<sub>${name.slice(1)}</sub> = `;
      letter.append(output);
      Object.assign(input, { type: "range", min: -LIMITS[k], max: LIMITS[k], step: STEP });
      input.addEventListener("input", () => set(theta.map((v, n) => (n === k ? Number(input.value) : v))));
      label.append(letter, input);
      matrix.append(label);
      inputs.push({ input, output });
    });
    bar.append(rows);
    for (const [name, numbers] of [...Object.entries(PRESETS), ["back to the start", told.theta]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => set(numbers));
      bar.append(button);
    }
    svg.setAttribute("role", "group"); // no longer one image: its handles are to be reached
    says.setAttribute("aria-live", "polite");
    says.before(bar);
    set(theta);
  }

  window.stnlib = window.stnlib || {};
  window.stnlib.frame = { PRESETS, determinant, grid, sample, corner, sentence };
  const all = () => document.querySelectorAll(".touch-frame:not(.started)").forEach((picture) => {
    picture.classList.add("started"); // each figure of a page brings this script along
    start(picture);
  });
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", all);
  else all();
})();
