// Chapter 3's landscape: a ball that rolls down the loss of a digit against its shifted self. The page holds a still
// picture of it, the digit, and the place to begin (data-touch), as stnlib/plotting/touch/landscape.py draws them: the
// same loss, the same slope, the same way down, the same words.
"use strict";

(() => {
  const RATES = { 0: 0.1, 1: 0.3, 4: 1 }; // of gradient descent on theta, for each blur
  const MOMENTUM = 0.9, PAD = 34, REACH = 18, UNIT = 8, CROP = 18;
  const STILL = 0.001; // pixels: a shorter step is none
  const MOST = 400; // steps of one roll
  const RED = [217, 98, 43], BLUE = [47, 131, 198], GREY = [125, 131, 138];

  // A Gaussian along the rows of an image, size x size; what lies beyond it is black. It comes back on its side.
  function smear(image, size, sigma) {
    const radius = Math.floor(4 * sigma + 0.5), kernel = [];
    for (let d = -radius; d <= radius; d++) kernel.push(Math.exp((-0.5 * d * d) / (sigma * sigma)));
    const sum = kernel.reduce((a, b) => a + b, 0), result = new Float64Array(size * size);
    for (let i = 0; i < size; i++)
      for (let j = 0; j < size; j++) {
        let total = 0;
        for (let d = -radius; d <= radius; d++)
          if (j + d >= 0 && j + d < size) total += kernel[d + radius] * image[i * size + j + d];
        result[j * size + i] = total / sum;
      }
    return result;
  }

  // A digit of whole numbers up to 255, row by row, in a frame of zeros, and blurred.
  function prepare(digit, sigma) {
    const size = digit.length + 2 * PAD;
    let image = new Float64Array(size * size);
    digit.forEach((row, i) => row.forEach((v, j) => { image[(i + PAD) * size + j + PAD] = v / 255; }));
    if (sigma) image = smear(smear(image, size, sigma), size, sigma);
    return { image, size };
  }

  // What a grid shifted by (x, y) pixels reads there, bilinear with zeros outside: f(pixel, value, its slopes).
  function shifted({ image, size }, x, y, f) {
    const m = Math.floor(x), n = Math.floor(y), a = x - m, b = y - n;
    const pixel = (i, j) => (i >= 0 && i < size && j >= 0 && j < size ? image[i * size + j] : 0);
    for (let i = 0, k = 0; i < size; i++)
      for (let j = 0; j < size; j++, k++) {
        const left = pixel(i + n, j + m), right = pixel(i + n, j + m + 1);
        const lowLeft = pixel(i + n + 1, j + m), lowRight = pixel(i + n + 1, j + m + 1);
        const upper = (1 - a) * left + a * right, lower = (1 - a) * lowLeft + a * lowRight;
        f(k, (1 - b) * upper + b * lower, (1 - b) * (right - left) + b * (lowRight - lowLeft), lower - upper);
      }
  }

  // Half the mean squared difference of an image and its shifted self, and its slopes along x and y, a pixel.
  function loss(prepared, x, y) {
    const { image, size } = prepared;
    let total = 0, gx = 0, gy = 0;
    shifted(prepared, x, y, (k, value, slopeX, slopeY) => {
      const difference = value - image[k];
      total += difference * difference;
      gx += difference * slopeX;
      gy += difference * slopeY;
    });
    return { loss: total / (2 * size * size), slope: [gx / (size * size), gy / (size * size)] };
  }

  // The ball's next step: one of gradient descent on theta, and what is left of its speed.
  const move = (slope, speed, sigma, momentum, size) =>
    slope.map((g, axis) => (momentum ? MOMENTUM * speed[axis] : 0) - RATES[sigma] * (size / 2) ** 2 * g);

  const within = (v) => Math.min(Math.max(v, -REACH), REACH);

  function roll(prepared, sigma, start, steps, momentum) {
    const path = [start];
    let speed = [0, 0];
    for (let k = 0; k < steps; k++) {
      const last = path[k];
      speed = move(loss(prepared, ...last).slope, speed, sigma, momentum, prepared.size);
      path.push(last.map((v, axis) => within(v + speed[axis])));
    }
    return path;
  }

  const number = (value, digits = 2) =>
    (Math.floor(value * 10 ** digits + 0.5 + 1e-6) / 10 ** digits).toFixed(digits).replace("-", "−");

  function sentence(prepared, sigma, [x, y], highest, steps = 0, speed = [0, 0], momentum = false) {
    const found = loss(prepared, x, y), away = Math.hypot(x, y);
    const [dx, dy] = move(found.slope, speed, sigma, momentum, prepared.size);
    const said = `${sigma ? `Blurred by ${sigma} pixel${sigma > 1 ? "s" : ""}` : "Sharp"}, ` +
      `after ${steps} step${steps === 1 ? "" : "s"}: the grid is shifted by ${number(x)} pixels along x and ` +
      `${number(y)} along y, ${number(away)} from home. ` +
      `The loss is ${number((100 * found.loss) / highest)} % of the highest. `;
    if (Math.hypot(dx, dy) >= STILL) return `${said}The next step is ${number(dx, 3)}, ${number(dy, 3)}.`;
    return said + (away < 0.5 ? "The ball is home." : "The ball lies still: it is stuck.");
  }

  function start(picture) {
    const told = JSON.parse(picture.dataset.touch), highest = Object.fromEntries(told.highest);
    const svg = picture.querySelector("svg"), still = picture.querySelector("img");
    const says = picture.querySelector(".touch-says"), ball = svg.querySelector(".ball");
    const images = {}, prepared = (sigma) => (images[sigma] = images[sigma] || prepare(told.digit, sigma));
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

    const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
    canvas.width = canvas.height = prepared(0).size - 2 * CROP;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", still.alt);
    still.replaceWith(canvas);
    const shown = context.createImageData(canvas.width, canvas.height);

    let sigma = 0, momentum = false, path = [], speed = [0, 0], steps = 0, rolling = null;

    function overlay([x, y]) {
      const { image, size } = prepared(sigma), brightest = image.reduce((a, b) => Math.max(a, b)), { data } = shown;
      shifted(prepared(sigma), x, y, (k, value) => {
        const i = Math.floor(k / size) - CROP, j = (k % size) - CROP;
        if (i < 0 || j < 0 || i >= canvas.height || j >= canvas.width) return;
        const red = value / brightest, blue = image[k] / brightest;
        const both = Math.min(red, blue), most = Math.max(red, blue), at = 4 * (i * canvas.width + j);
        for (let c = 0; c < 3; c++)
          data[at + c] = most && (RED[c] * (red - both) + BLUE[c] * (blue - both) + GREY[c] * both) / most;
        data[at + 3] = 255 * most;
      });
      context.putImageData(shown, 0, 0);
    }

    function draw(speaks = true) {
      const here = path[path.length - 1];
      for (const map of svg.querySelectorAll(".map"))
        map.setAttribute("visibility", Number(map.dataset.sigma) === sigma ? "visible" : "hidden");
      const way = path.map((p) => p.map((v) => (v * UNIT).toFixed(1)).join(" ")).join("L");
      for (const line of svg.querySelectorAll(".halo, .path")) line.setAttribute("d", path.length > 1 ? `M${way}` : "");
      ball.setAttribute("transform", `translate(${here.map((v) => v * UNIT).join(" ")})`);
      ball.setAttribute("aria-valuenow", number(here[0]).replace("−", "-"));
      ball.setAttribute("aria-valuetext", `x ${number(here[0])}, y ${number(here[1])}`);
      select.value = sigma;
      pushing.setAttribute("aria-pressed", momentum);
      going.textContent = rolling === null ? "roll" : "stop";
      overlay(here);
      // While it rolls, the sentence waits: nobody can listen that fast.
      if (speaks) says.textContent = sentence(prepared(sigma), sigma, here, highest[sigma], steps, speed, momentum);
    }

    function stop() {
      cancelAnimationFrame(rolling);
      rolling = null;
    }

    function put(x, y) {
      stop();
      [path, speed, steps] = [[[within(x), within(y)]], [0, 0], 0];
      draw();
    }

    // Take a step; false if there is none to take.
    function step() {
      const here = path[path.length - 1], { slope } = loss(prepared(sigma), ...here);
      const next = move(slope, speed, sigma, momentum, prepared(sigma).size);
      if (Math.hypot(...next) < STILL) return false;
      speed = next;
      path.push(here.map((v, axis) => within(v + next[axis])));
      steps += 1;
      return true;
    }

    function go() {
      if (rolling !== null) {
        stop();
        draw();
        return;
      }
      const last = steps + MOST;
      if (calm.matches) {
        while (steps < last && step());
        draw();
        return;
      }
      const frame = () => {
        rolling = steps < last && step() ? requestAnimationFrame(frame) : null;
        draw(rolling === null);
      };
      rolling = requestAnimationFrame(frame);
      draw(false);
    }

    const moveTo = (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      put(...[at.x, at.y].map((v) => Math.round((2 * v) / UNIT) / 2));
    };
    const target = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    target.setAttribute("class", "target");
    target.setAttribute("r", 18);
    ball.prepend(target);
    ball.classList.add("handle");
    for (const [attribute, value] of Object.entries({
      tabindex: 0, role: "slider", "aria-label": "ball", "aria-valuemin": -REACH, "aria-valuemax": REACH,
    })) ball.setAttribute(attribute, value);
    let held = false;
    ball.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false }); // no scrolling
    ball.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      event.preventDefault();
      ball.focus({ preventScroll: true });
      ball.setPointerCapture(event.pointerId);
      held = true;
    });
    ball.addEventListener("pointermove", (event) => { if (held) moveTo(event); });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
      ball.addEventListener(end, () => { held = false; });
    svg.addEventListener("click", (event) => { if (!ball.contains(event.target)) moveTo(event); });
    ball.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!way || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault(); // the page does not scroll, nor turn
      event.stopPropagation();
      const here = path[path.length - 1];
      put(...here.map((v, axis) => Math.round(2 * v) / 2 + way[axis] / 2));
    });

    const bar = document.createElement("div");
    bar.className = "touch-bar";
    bar.setAttribute("role", "group");
    bar.setAttribute("aria-label", "The digit and the ball");
    const label = document.createElement("label"), select = document.createElement("select");
    label.append("digit ", select);
    for (const [blur] of told.highest)
      select.append(new Option(blur ? `blurred by ${blur} pixel${blur > 1 ? "s" : ""}` : "sharp", blur));
    select.addEventListener("change", () => {
      sigma = Number(select.value);
      put(...path[0]); // the same start on another map
    });
    bar.append(label);
    const button = (text, press) => {
      const made = document.createElement("button");
      made.type = "button";
      made.textContent = text;
      made.addEventListener("click", press);
      bar.append(made);
      return made;
    };
    button("step", () => {
      stop();
      step();
      draw();
    });
    const going = button("roll", go);
    const pushing = button("momentum", () => {
      momentum = !momentum;
      draw(rolling === null);
    });
    button("back to the start", () => {
      [sigma, momentum] = [0, false];
      put(told.x, told.y);
    });
    svg.setAttribute("role", "group"); // no longer one image: its ball is to be reached
    says.setAttribute("aria-live", "polite");
    says.before(bar);
    put(told.x, told.y);
  }

  window.stnlib = window.stnlib || {};
  window.stnlib.landscape = { prepare, loss, move, roll, sentence };
  const all = () => document.querySelectorAll(".touch-landscape:not(.started)").forEach((picture) => {
    picture.classList.add("started"); // each figure of a page brings this script along
    start(picture);
  });
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", all);
  else all();
})();
