// Chapter 5's spatial transformer, run in the page: a digit of MNIST or of the reader's own hand lies in a frame, and a
// trained ST-FCN says where it looks and what it reads. The weights are in transformer_weights.js beside this file,
// which only this script loads. data-touch holds ten digits, pieces of clutter, and what lies in the frame at first, as
// stnlib/plotting/touch/transformer.py does; what is computed and drawn here is what stnlib computes.
"use strict";

(() => {
  const SIZE = 42, DIGIT = 28, SIDE = 6, HALF = SIZE / 2; // pixels: the frame, a digit, a piece of clutter
  const LINES = 7, MOST = 8; // of the grid in each direction; pieces
  const PEN = 1.5; // radius of a stroke, in pixels
  const BLUE = "#2f83c6", GREY = "#7d838a";
  const SCRIPT = document.currentScript.src;

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  // ---- The network -------------------------------------------------------------------------------

  function half(bits) { // a float16 as a number
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, part = bits & 1023;
    if (exponent === 0) return sign * part * 2 ** -24;
    if (exponent === 31) return part ? NaN : sign * Infinity;
    return sign * (1 + part / 1024) * 2 ** (exponent - 15);
  }

  // The arrays of a file of weights, by their names.
  function read({ shapes, float16 }) {
    const view = new DataView(bytes(float16).buffer), network = {};
    let first = 0;
    for (const [name, shape] of Object.entries(shapes)) {
      const count = shape.reduce((a, b) => a * b, 1), values = new Float32Array(count);
      for (let k = 0; k < count; k++) values[k] = half(view.getUint16(2 * (first + k), true));
      network[name] = values;
      first += count;
    }
    return network;
  }

  function linear(network, name, input) {
    const weight = network[`${name}.weight`], bias = network[`${name}.bias`], n = input.length;
    return Float64Array.from(bias, (start, row) => {
      let sum = start;
      for (let k = 0, at = row * n; k < n; k++, at++) sum += weight[at] * input[k];
      return sum;
    });
  }

  const relu = (values) => values.map((value) => Math.max(value, 0));

  // An image (height, width), read bilinearly at x, y in pixels; beyond it, all is 0.
  function bilinear(image, height, width, x, y) {
    const left = Math.floor(x), above = Math.floor(y), right = x - left, below = y - above;
    const at = (j, i) => (j >= 0 && j < width && i >= 0 && i < height ? image[i * width + j] : 0);
    return (1 - below) * ((1 - right) * at(left, above) + right * at(left + 1, above)) +
      below * ((1 - right) * at(left, above + 1) + right * at(left + 1, above + 1));
  }

  function sample(frame, [a, b, c, d, e, f]) {
    const output = new Float64Array(SIZE * SIZE);
    for (let i = 0; i < SIZE; i++)
      for (let j = 0; j < SIZE; j++) {
        const x = (2 * j + 1) / SIZE - 1, y = (2 * i + 1) / SIZE - 1; // normalised; align_corners=False
        const [u, v] = [a * x + b * y + c, d * x + e * y + f].map((value) => ((value + 1) * SIZE - 1) / 2);
        output[i * SIZE + j] = bilinear(frame, SIZE, SIZE, u, v);
      }
    return output;
  }

  function pooled(image) { // means of two by two
    const n = SIZE / 2, means = new Float64Array(n * n);
    for (let i = 0; i < SIZE; i++)
      for (let j = 0; j < SIZE; j++) means[(i >> 1) * n + (j >> 1)] += image[i * SIZE + j] / 4;
    return means;
  }

  function softmax(logits) {
    const most = Math.max(...logits), powers = logits.map((value) => Math.exp(value - most));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((value) => value / sum);
  }

  // Theta, what the transformer hands on, and the probabilities of the ten classes.
  function forward(network, frame) {
    let hidden = frame;
    for (const layer of [1, 3, 5]) hidden = relu(linear(network, `transformer.localisation.${layer}`, hidden));
    const theta = linear(network, "transformer.localisation.7", hidden), output = sample(frame, theta);
    hidden = pooled(output);
    for (const layer of [1, 3]) hidden = relu(linear(network, `classifier.layers.${layer}`, hidden));
    return { theta, output, probabilities: softmax(linear(network, "classifier.layers.5", hidden)) };
  }

  // ---- What is in the frame ----------------------------------------------------------------------

  // A digit of bytes in the frame: centre in pixels from the frame's, degrees clockwise, size.
  function posed(digit, { x, y, angle, scale }) {
    const turn = (angle * Math.PI) / 180, cosine = Math.cos(turn) / scale, sine = Math.sin(turn) / scale;
    const ink = Float64Array.from(digit, (value) => value / 255), frame = new Float64Array(SIZE * SIZE);
    for (let i = 0; i < SIZE; i++)
      for (let j = 0; j < SIZE; j++) {
        const u = j - (SIZE - 1) / 2 - x, v = i - (SIZE - 1) / 2 - y, middle = (DIGIT - 1) / 2;
        const place = [middle + cosine * u + sine * v, middle - sine * u + cosine * v];
        frame[i * SIZE + j] = bilinear(ink, DIGIT, DIGIT, ...place);
      }
    return frame;
  }

  // Strokes, lists of points in pixels, as ink: 1 along the line, falling to 0 within a pixel at its edge.
  function inked(strokes, radius) {
    const frame = new Float64Array(SIZE * SIZE);
    for (const stroke of strokes) {
      const pen = stroke.pen ?? radius; // each has its own once it is scaled
      stroke.forEach(([x, y], k) => {
        const [x0, y0] = stroke[Math.max(k - 1, 0)], dx = x - x0, dy = y - y0, long = dx * dx + dy * dy;
        const reach = pen + 1, from = (a, b) => Math.max(0, Math.floor(Math.min(a, b) - reach));
        const to = (a, b) => Math.min(SIZE - 1, Math.ceil(Math.max(a, b) + reach));
        for (let i = from(y, y0); i <= to(y, y0); i++)
          for (let j = from(x, x0); j <= to(x, x0); j++) {
            const part = long ? Math.min(1, Math.max(0, ((j - x0) * dx + (i - y0) * dy) / long)) : 0;
            const far = Math.hypot(j - x0 - part * dx, i - y0 - part * dy), at = i * SIZE + j;
            frame[at] = Math.max(frame[at], Math.min(1, Math.max(0, pen + 0.5 - far)));
          }
      });
    }
    return frame;
  }

  // Pieces of digits laid on the frame; where ink meets ink, the brighter is seen.
  function cluttered(frame, digits, pieces) {
    for (const [digit, x, y, column, line] of pieces)
      for (let i = 0; i < SIDE; i++)
        for (let j = 0; j < SIDE; j++) {
          const at = (line + i) * SIZE + column + j;
          frame[at] = Math.max(frame[at], digits[digit][(y + i) * DIGIT + x + j] / 255);
        }
    return frame;
  }

  // ---- How it is drawn and said ------------------------------------------------------------------

  const fixed = (value, digits) => (Math.floor(value * 10 ** digits + 0.5) / 10 ** digits).toFixed(digits);
  const minus = (number) => number.replace("-", "−");
  const percent = (p) => (p > 0.995 ? "> 99 %" : p >= 0.005 ? `${Math.floor(100 * p + 0.5)} %` : "< 1 %");

  const inWords = (p) => percent(p).replace(">", "over").replace("<", "under");

  const place = ([a, b, c, d, e, f], x, y) =>
    [a * x + b * y + c, d * x + e * y + f].map((value) => fixed((1 + value) * HALF, 2)).join(" ");

  function grid(theta) {
    let lines = "";
    for (let k = 0; k < LINES; k++) {
      const s = (2 * k) / (LINES - 1) - 1;
      lines += `M${place(theta, s, -1)}L${place(theta, s, 1)}M${place(theta, -1, s)}L${place(theta, 1, s)}`;
    }
    return lines;
  }

  const top = (theta) => `M${place(theta, -1, -1)}L${place(theta, 1, -1)}`;

  function bars(probabilities) {
    const best = probabilities.indexOf(Math.max(...probabilities));
    return Array.from(probabilities, (p, digit) => {
      const y = 3 + 12 * digit, width = Math.floor(570 * p + 0.5) / 10;
      return (
        `<text x="3" y="${y + 8}" class="start">${digit}</text>` +
        `<rect x="13" y="${y}" width="${width}" height="10" fill="${digit === best ? BLUE : GREY}"></rect>` +
        `<text x="100" y="${y + 8}">${percent(p).replace("<", "&lt;").replace(">", "&gt;")}</text>`
      );
    }).join("");
  }

  function sentence(what, theta, probabilities) {
    const order = [...probabilities.keys()].sort((a, b) => probabilities[a] - probabilities[b]);
    const sure = [order[9], order[8]].map((k) => `${k} with ${inWords(probabilities[k])}`).join(", then ");
    const row = (first) => Array.from(theta.slice(first, first + 3), (value) => minus(fixed(value, 2))).join(", ");
    return `${what}The network says ${sure}. θ has the rows ${row(0)} and ${row(3)}.`;
  }

  // An image of values from 0 to 1, (side, side), as an address.
  function address(values, side) {
    const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
    canvas.width = canvas.height = side;
    const image = context.createImageData(side, side);
    values.forEach((value, k) => {
      image.data.fill(Math.round(255 * Math.min(1, Math.max(0, value))), 4 * k, 4 * k + 3);
      image.data[4 * k + 3] = 255;
    });
    context.putImageData(image, 0, 0);
    return canvas.toDataURL();
  }

  // ---- The figure --------------------------------------------------------------------------------

  function start(picture, network) {
    const told = JSON.parse(picture.dataset.touch), all = bytes(told.digits);
    const digits = Array.from({ length: 10 }, (_, k) => all.subarray(k * DIGIT ** 2, (k + 1) * DIGIT ** 2));
    const [left, middle, right] = picture.querySelectorAll("svg"), says = picture.querySelector(".touch-says");
    const part = (svg, name) => svg.querySelector(name);
    const here = { x: 0, y: 0, angle: 0, scale: 1 };
    let scene, strokes, drawing; // strokes: null if there is a digit; drawing: whether the pointer draws

    function begin() { [scene, strokes, drawing] = [{ ...told.start }, null, false]; }

    // The strokes as they lie in the frame: turned and scaled about the middle of their box.
    function laid() {
      const points = strokes.flat(), [xs, ys] = [points.map((p) => p[0]), points.map((p) => p[1])];
      const centre = (some) => (some.length ? (Math.min(...some) + Math.max(...some)) / 2 : 0);
      const [cx, cy] = [centre(xs), centre(ys)], turn = (scene.angle * Math.PI) / 180;
      const [cosine, sine] = [Math.cos(turn) * scene.scale, Math.sin(turn) * scene.scale];
      return strokes.map((stroke) => Object.assign(stroke.map(([x, y]) => [
        cx + scene.x + cosine * (x - cx) - sine * (y - cy), cy + scene.y + sine * (x - cx) + cosine * (y - cy),
      ]), { pen: stroke.pen * scene.scale }));
    }

    const bar = document.createElement("div");
    bar.className = "touch-bar";
    bar.setAttribute("role", "group");
    bar.setAttribute("aria-label", "Choose a digit, draw one, turn, scale and clutter it");

    function button(label, act, into = bar) {
      const made = document.createElement("button");
      made.type = "button";
      made.append(label);
      made.addEventListener("click", () => { last = null; act(); draw(); });
      into.append(made);
      return made;
    }

    function slider(label, low, high, step, unit, set) {
      const around = document.createElement("label"), input = document.createElement("input");
      const output = document.createElement("output");
      Object.assign(input, { type: "range", min: low, max: high, step });
      input.addEventListener("input", () => { set(Number(input.value)); draw(); });
      around.append(label, input, output);
      bar.append(around);
      return (value) => { input.value = value; output.textContent = minus(String(value)) + unit; };
    }

    const row = document.createElement("div");
    row.className = "digits";
    bar.append(row);
    const choices = digits.map((digit, k) => {
      const image = new Image();
      image.src = address(Array.from(digit, (value) => value / 255), DIGIT);
      image.alt = `the digit ${k}`;
      return button(image, () => choose(k), row);
    });
    function choose(digit) { [scene.digit, strokes, drawing] = [digit, null, false]; }

    const drag = button("drag", () => { drawing = false; });
    const pen = button("draw", () => {
      if (strokes === null) clear();
      drawing = true;
    });
    button("clear", () => clear());
    function clear() { [strokes, drawing] = [[], true]; Object.assign(scene, here, { pieces: 0 }); }
    const showAngle = slider("turn", -180, 180, 1, "°", (value) => { scene.angle = value; });
    const showScale = slider("size", 0.5, 1.5, 0.05, "", (value) => { scene.scale = value; });
    const showPieces = slider("clutter", 0, MOST, 1, "", (value) => { scene.pieces = value; });
    button("as at first", begin);

    function draw() {
      const bare = strokes === null ? posed(digits[scene.digit], scene) : inked(laid(), PEN);
      const frame = cluttered(bare, digits, told.pieces.slice(0, scene.pieces));
      const { theta, output, probabilities } = forward(network, frame);
      part(left, "image").setAttribute("href", address(frame, SIZE));
      for (const name of ["halo", "grid"]) part(left, `.${name}`).setAttribute("d", grid(theta));
      part(left, ".top").setAttribute("d", top(theta));
      part(middle, "image").setAttribute("href", address(output, SIZE));
      middle.querySelectorAll("text:not(.start)").forEach((text, k) => {
        text.textContent = minus(fixed(theta[k], 2));
      });
      right.innerHTML = bars(probabilities);
      const empty = strokes !== null && !strokes.length;
      const what = strokes === null ? `It is a ${scene.digit}. ` : empty ? "Nothing is drawn yet. " : "";
      says.textContent = sentence(what, theta, probabilities);
      choices.forEach((choice, k) => choice.setAttribute("aria-pressed", String(strokes === null && scene.digit === k)));
      drag.setAttribute("aria-pressed", String(!drawing));
      pen.setAttribute("aria-pressed", String(drawing));
      left.classList.toggle("pen", drawing);
      [showAngle(scene.angle), showScale(scene.scale), showPieces(scene.pieces)];
      const [x, y] = [scene.x, scene.y].map((value) => minus(fixed(value, 1)));
      left.setAttribute("aria-valuenow", String(Math.round(scene.angle)));
      left.setAttribute("aria-valuetext", `moved by ${x} and ${y} pixels, turned by ${minus(fixed(scene.angle, 0))} ` +
        `degrees, size ${fixed(scene.scale, 2)}`);
    }

    // By pointer: the digit goes along, or a stroke follows.
    const within = (value) => Math.min(SIZE / 2, Math.max(-SIZE / 2, value));
    const point = (event) => { // in pixels; the first one's centre is 0
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(left.getScreenCTM().inverse());
      return [at.x - 0.5, at.y - 0.5];
    };
    let last = null, pointer = null, grip = null; // where it was, which one it is, and how it holds the digit
    left.addEventListener("pointerdown", (event) => {
      if (event.button || (last && event.pointerId !== pointer)) return; // one finger at a time
      left.setPointerCapture(event.pointerId);
      [last, pointer] = [point(event), event.pointerId];
      grip = [scene.x - last[0], scene.y - last[1]];
      if (!drawing) return;
      strokes = laid(); // which now lie as they were seen
      Object.assign(scene, here);
      strokes.push(Object.assign([last], { pen: PEN }));
      draw();
    });
    left.addEventListener("pointermove", (event) => {
      if (!last || event.pointerId !== pointer) return;
      const now = point(event);
      if (drawing) strokes[strokes.length - 1].push(now);
      else [scene.x, scene.y] = grip.map((v, axis) => within(v + now[axis]));
      last = now;
      draw();
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
      left.addEventListener(end, (event) => { if (event.pointerId === pointer) last = null; });

    const turned = (by) => { scene.angle = ((Math.round(scene.angle) + by + 540) % 360) - 180; };
    const scaled = (by) => { scene.scale = Math.round(20 * Math.min(1.5, Math.max(0.5, scene.scale + by))) / 20; };
    const keys = {
      ArrowLeft: () => { scene.x = within(scene.x - 1); }, ArrowRight: () => { scene.x = within(scene.x + 1); },
      ArrowUp: () => { scene.y = within(scene.y - 1); }, ArrowDown: () => { scene.y = within(scene.y + 1); },
      ",": () => turned(-5), ".": () => turned(5), "-": () => scaled(-0.05), "+": () => scaled(0.05),
    };
    for (let k = 0; k < 10; k++) keys[k] = () => choose(k);
    left.addEventListener("keydown", (event) => {
      if (!(event.key in keys) || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault(); // the page does not scroll, nor turn
      event.stopPropagation();
      keys[event.key]();
      draw();
    });

    left.setAttribute("role", "slider");
    left.setAttribute("tabindex", "0");
    left.setAttribute("aria-label", "The digit in the frame: arrows move it, comma and full stop turn it, plus and " +
      "minus scale it, a number key chooses another");
    left.setAttribute("aria-valuemin", "-180");
    left.setAttribute("aria-valuemax", "180");
    left.classList.add("alive");
    says.setAttribute("aria-live", "polite");
    says.before(bar);
    begin();
    draw();
    picture.dataset.alive = "";
  }

  // The weights are loaded once, however many figures there are.
  function load() {
    return new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = new URL("transformer_weights.js", SCRIPT);
      script.onload = () => done(read(window.stnlib.transformerWeights));
      script.onerror = () => failed(new Error("The weights of the network did not load."));
      document.head.append(script);
    });
  }

  async function begin() {
    const pictures = document.querySelectorAll(".touch-transformer[data-touch]:not([data-started])");
    if (!pictures.length) return;
    pictures.forEach((picture) => { picture.dataset.started = ""; });
    try {
      const network = await (window.stnlib.transformer.network ||= load());
      pictures.forEach((picture) => start(picture, network));
    } catch (error) {
      pictures.forEach((picture) => picture.querySelector(".touch-says").append(` ${error.message}`));
    }
  }

  window.stnlib = window.stnlib || {};
  window.stnlib.transformer ||= { half, forward, posed, inked, cluttered, sample, grid, top, bars, sentence, percent };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
