// Chapter 4's picture of threads over pixels, to be stepped through block by block and warp by warp. The page holds a
// still picture of one block and the few numbers that the others are computed from (data-threads), as
// stnlib/plotting/kernels.py does: the same positions, the same words.
"use strict";

(() => {
  const WARP = 32, SECTOR = 32, ITEM = 4; // threads; bytes; bytes

  const number = (n) => n.toLocaleString("en-GB"); // 1,024

  function launch({ size, out, block: [columns, rows], pixels, matrix }) {
    const [height, width] = size, [hOut, wOut] = out;
    const across = Math.ceil(wOut / columns), high = rows * pixels;
    const blocks = across * Math.ceil(hOut / high), warps = Math.floor((columns * rows) / WARP);

    // The output pixels that a block, or one of its warps, makes.
    function made(block, warp) {
      const left = (block % across) * columns, top = Math.floor(block / across) * high;
      const first = warp === null ? 0 : warp * WARP, end = warp === null ? columns * rows : first + WARP;
      const found = [];
      for (let q = 0; q < pixels; q++)
        for (let thread = first; thread < end; thread++) {
          const x = left + (thread % columns), y = top + q * rows + Math.floor(thread / columns);
          if (x < wOut && y < hOut) found.push([x, y]);
        }
      return found;
    }

    const position = ([j, i]) => matrix.map((m) => m[0] * j + (m[1] * i + m[2]));

    // The input's pixels that these read, each once, row by row.
    function read(pixels) {
      const places = new Set();
      for (const pixel of pixels) {
        const [x, y] = position(pixel).map(Math.floor);
        for (const [m, n] of [[x, y], [x + 1, y], [x, y + 1], [x + 1, y + 1]])
          if (m >= 0 && m < width && n >= 0 && n < height) places.add(n * width + m);
      }
      return [...places].sort((a, b) => a - b).map((place) => [place % width, Math.floor(place / width)]);
    }

    // Where the tile of a block lies in the input.
    function outline(block) {
      const all = made(block, null), [xs, ys] = [all.map((p) => p[0]), all.map((p) => p[1])];
      const [left, right] = [Math.min(...xs) - 0.5, Math.max(...xs) + 0.5];
      const [top, bottom] = [Math.min(...ys) - 0.5, Math.max(...ys) + 0.5];
      const corners = [[left, top], [right, top], [right, bottom], [left, bottom]].map(position);
      return "M" + corners.map((corner) => corner.map((x) => (x + 0.5).toFixed(2)).join(" ")).join("L") + "z";
    }

    function sentence(block, warp) {
      const pixels = made(block, warp), places = read(pixels);
      const xs = pixels.map((p) => p[0]), rows = [...new Set(pixels.map((p) => p[1]))].sort((a, b) => a - b);
      const sectors = new Set(places.map(([x, y]) => Math.floor(((y * width + x) * ITEM) / SECTOR)));
      const steady = rows.length > 1 && rows.every((row, k) => row === rows[0] + k);
      const which = steady ? `${rows[0]} to ${rows[rows.length - 1]}` : rows.join(", ");
      return (
        `Block ${block} of ${blocks}${warp === null ? "" : `, warp ${warp}`}: ` +
        `columns ${Math.min(...xs)} to ${Math.max(...xs)}, rows ${which}. ` +
        `It makes ${number(pixels.length)} pixels and writes ${number(ITEM * pixels.length)} bytes. ` +
        `Its threads ask for ${number(4 * ITEM * pixels.length)} bytes of the input: ` +
        `${number(ITEM * places.length)} different ones, in sectors that hold ${number(SECTOR * sectors.size)}.`
      );
    }

    // Which block and warp make a pixel of the output.
    function owner(x, y) {
      const block = Math.floor(y / high) * across + Math.floor(x / columns);
      return [block, Math.floor(((y % rows) * columns + (x % columns)) / WARP)];
    }

    return { across, blocks, warps, width: wOut, height: hOut, made, read, outline, sentence, owner };
  }

  // Pixels as a path: a rectangle for each run of neighbours in a row.
  function runs(pixels) {
    const parts = [];
    for (const [x, y] of [...pixels].sort((a, b) => a[1] - b[1] || a[0] - b[0])) {
      const last = parts[parts.length - 1];
      if (last && last[1] === y && last[0] + last[2] === x) last[2]++;
      else parts.push([x, y, 1]);
    }
    return parts.map(([x, y, n]) => `M${x} ${y}h${n}v1h-${n}z`).join("");
  }

  function start(picture) {
    const told = JSON.parse(picture.dataset.threads), plan = launch(told);
    const [output, input] = picture.querySelectorAll("svg"), says = picture.querySelector(".threads-says");
    let block = told.start, warp = null; // null: all warps

    function draw() {
      const part = (svg, name) => svg.querySelector(`path.${name}`);
      part(output, "block").setAttribute("d", runs(plan.made(block, null)));
      part(input, "block").setAttribute("d", runs(plan.read(plan.made(block, null))));
      part(input, "tiles").setAttribute("d", plan.outline(block));
      const some = warp === null ? [] : plan.made(block, warp);
      part(output, "warp").setAttribute("d", runs(some));
      part(input, "warp").setAttribute("d", runs(plan.read(some)));
      says.textContent = plan.sentence(block, warp);
    }

    const moves = {
      block: (step) => { block = (block + step + plan.blocks) % plan.blocks; },
      warp: (step) => { // through "all warps" and round
        const next = ((warp === null ? -1 : warp) + 1 + step + plan.warps + 1) % (plan.warps + 1);
        warp = next === 0 ? null : next - 1;
      },
    };
    const move = (what, step) => { moves[what](step); draw(); };

    const bar = document.createElement("div");
    bar.className = "threads-bar";
    bar.setAttribute("role", "group");
    bar.setAttribute("aria-label", "Step through the threads");
    for (const [text, what, step] of [
      ["← block", "block", -1], ["block →", "block", 1], ["↑ warp", "warp", -1], ["warp ↓", "warp", 1],
    ]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.setAttribute("aria-label", `${step < 0 ? "Previous" : "Next"} ${what}`);
      button.addEventListener("click", () => move(what, step));
      bar.append(button);
    }
    const keys = { ArrowLeft: ["block", -1], ArrowRight: ["block", 1], ArrowUp: ["warp", -1], ArrowDown: ["warp", 1] };
    bar.addEventListener("keydown", (event) => {
      if (!(event.key in keys) || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault(); // the page does not scroll, nor turn
      event.stopPropagation();
      move(...keys[event.key]);
    });
    output.addEventListener("click", (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(output.getScreenCTM().inverse());
      const [x, y] = [Math.floor(at.x), Math.floor(at.y)];
      if (x < 0 || y < 0 || x >= plan.width || y >= plan.height) return;
      [block, warp] = plan.owner(x, y);
      draw();
    });
    output.classList.add("alive");
    says.setAttribute("aria-live", "polite");
    says.before(bar);
  }

  const all = () => document.querySelectorAll(".threads[data-threads]:not(.started)").forEach((picture) => {
    picture.classList.add("started"); // each figure of a page brings this script along
    start(picture);
  });
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", all);
  else all();
})();
