// Chapter 4's race: three threads add to the same pixel of a gradient, and the reader says which takes the next step.
// What is computed and drawn is what stnlib/plotting/touch/race.py computes and draws, in float32: the same numbers,
// the same words. data-touch holds what the threads may add, and the order of the steps that the page begins with.
"use strict";

(() => {
  const COLOURS = { reads: "#2f83c6", adds: "#7d838a", writes: "#d9622b", atomicAdd: "#1a9367" };
  const RIGHT = "#1a9367", WRONG = "#d9622b";
  const COLUMN = 84, ROW = 36, TOP = 42, SLIM = 28, WIDTH = 76, HEIGHT = 30, EDGE = 8; // of the drawings
  const does = (atomic) => (atomic ? ["atomicAdd"] : ["reads", "adds", "writes"]);

  // A step for each thread in order: what it does, with which number, and what memory holds after it, and whose.
  function simulate(shares, order, atomic) {
    const program = does(atomic), taken = shares.map(() => 0);
    let memory = 0, within = [];
    const held = shares.map(() => [memory, within]); // a register a thread
    return order.map((thread) => {
      const what = program[taken[thread]++];
      if (what === undefined) throw new RangeError(`thread ${thread} has no step left`);
      if (what === "reads" || atomic) held[thread] = [memory, within];
      if (what === "adds" || atomic)
        held[thread] = [Math.fround(held[thread][0] + Math.fround(shares[thread])), [...held[thread][1], thread]];
      if (what === "writes" || atomic) [memory, within] = held[thread];
      return { thread, does: what, number: held[thread][0], memory, within: [...within].sort() };
    });
  }

  // What memory may hold at the end, in ascending order, and after how many orders of the steps it does.
  function finals(shares, atomic) {
    const found = new Map();
    (function goOn(order, left) {
      if (!left.some(Boolean)) {
        const end = simulate(shares, order, atomic)[order.length - 1].memory;
        found.set(end, (found.get(end) || 0) + 1);
      }
      left.forEach((steps, thread) => {
        if (steps) goOn([...order, thread], left.map((n, k) => n - (k === thread)));
      });
    })([], shares.map(() => does(atomic).length));
    return [...found].sort((a, b) => a[0] - b[0]);
  }

  // A number of float32 in the fewest digits that tell it from its neighbours.
  function text(value) {
    value = Math.fround(value);
    let digits = 1;
    while (Math.fround(Number(value.toPrecision(digits))) !== value) digits++;
    const short = Math.abs(value) < 1e6
      ? String(Number(value.toPrecision(digits)))
      : value.toExponential(digits - 1).replace("e+", "e");
    return short.replaceAll("-", "−");
  }

  const sum = (shares) => shares.reduce((a, b) => a + b, 0);

  function sentence(shares, order, atomic) {
    const steps = simulate(shares, order, atomic), most = shares.length * does(atomic).length;
    if (!steps.length) {
      const all = shares.map(text), final = all.pop();
      return `Memory holds 0. ${shares.length} threads are to add ${all.join(", ")} and ${final}. Which goes first?`;
    }
    const last = steps[steps.length - 1];
    const verb = {
      reads: `reads ${text(last.number)}`,
      adds: `adds ${text(shares[last.thread])} to what it has read: ${text(last.number)}`,
      writes: `writes ${text(last.number)}`,
      atomicAdd: `reads, adds and writes in one step: ${text(last.number)}`,
    }[last.does];
    let said = `Step ${steps.length} of ${most}: thread ${last.thread} ${verb}. Memory holds ${text(last.memory)}.`;
    const written = steps.filter((step) => step.does === "writes" || atomic).map((step) => step.thread);
    const gone = written.filter((thread) => !last.within.includes(thread)).sort();
    if (gone.length) said += ` Lost: ${gone.map((t) => `thread ${t}’s ${text(shares[t])}`).join(" and ")}.`;
    if (steps.length === most) {
      const right = last.memory === Math.fround(sum(shares));
      said += ` All are done${right ? ", and the sum is right" : `; it should be ${text(sum(shares))}`}.`;
      if (!gone.length && !right) said += " No addition is lost: this order rounds like that.";
    }
    return said;
  }

  const place = (column) => EDGE + column * COLUMN;
  const word = (column, y, what) => `<text x="${place(column) + WIDTH / 2}" y="${y}">${what}</text>`;
  const box = (column, y, colour) =>
    `<rect x="${place(column)}" y="${y}" width="${WIDTH}" height="${HEIGHT}" rx="5" ` +
    `fill="${colour}" stroke="${colour}"></rect>`;

  function arrow(start, end, y, colour) {
    const back = end > start ? end - 6 : end + 6;
    return `<path d="M${start} ${y}H${end}" stroke="${colour}"></path>` +
      `<path class="head" d="M${back} ${y - 4}L${end} ${y}L${back} ${y + 4}" stroke="${colour}"></path>`;
  }

  function drawing(shares, order, atomic) {
    const memory = shares.length;
    const parts = shares.map((share, k) => word(k, 16, `thread ${k}`) + word(k, 32, `adds ${text(share)}`));
    parts.push(word(memory, 16, "memory"), word(memory, 32, "0"));
    simulate(shares, order, atomic).forEach((step, row) => {
      const y = TOP + row * ROW, colour = COLOURS[step.does];
      const near = place(step.thread) + WIDTH, far = place(memory);
      if (step.does !== "adds")
        parts.push(arrow(...(step.does === "reads" ? [far, near] : [near, far]), y + HEIGHT / 2, colour));
      parts.push(box(step.thread, y, colour));
      parts.push(word(step.thread, y + 13, step.does) + word(step.thread, y + 26, text(step.number)));
      if (step.does === "writes" || atomic) parts.push(box(memory, y, colour));
      parts.push(word(memory, y + 20, text(step.memory)));
    });
    return parts.join("");
  }

  function outcomes(shares, order, atomic) {
    const found = finals(shares, atomic), steps = simulate(shares, order, atomic);
    const done = steps.length === shares.length * does(atomic).length;
    const most = Math.max(...found.map(([, count]) => count)), exact = Math.fround(sum(shares));
    const parts = [
      '<text x="126" y="16" class="end">memory at the end</text>' +
      `<text x="138" y="16" class="start">orders, of ${sum(found.map(([, n]) => n)).toLocaleString("en-GB")}</text>`,
    ];
    found.forEach(([value, count], row) => {
      const y = TOP + row * SLIM, colour = value === exact ? RIGHT : WRONG;
      const here = done && value === steps[steps.length - 1].memory;
      const width = Math.round((1300 * count) / most) / 10;
      parts.push(
        `<text x="126" y="${y + 20}" class="end">${text(value)}</text>` +
        `<rect x="138" y="${y + 5}" width="${width}" height="20" fill="${colour}" stroke="${colour}"` +
        `${here ? ' class="here"' : ""}></rect>` +
        `<text x="${144 + width}" y="${y + 20}" class="start">${count}${here ? " ← here" : ""}</text>`,
      );
    });
    return parts.join("");
  }

  function start(picture) {
    const told = JSON.parse(picture.dataset.touch);
    const [left, right] = picture.querySelectorAll("svg"), says = picture.querySelector(".touch-says");
    let shares, order, atomic;
    const begin = () => { [shares, order, atomic] = [told.shares[0], [...told.start], false]; };
    const stepsOf = (thread) => order.filter((t) => t === thread).length;

    const bar = document.createElement("div");
    bar.className = "touch-bar";
    bar.setAttribute("role", "group");
    bar.setAttribute("aria-label", "Let the threads take their steps");

    function button(label, act) {
      const made = document.createElement("button");
      made.type = "button";
      made.textContent = label;
      made.addEventListener("click", () => { act(); draw(); });
      bar.append(made);
      return made;
    }

    function select(label, options, act) {
      const made = document.createElement("select"), around = document.createElement("label");
      options.forEach((option, k) => made.append(new Option(option, k)));
      made.addEventListener("change", () => { act(Number(made.value)); draw(); });
      around.append(label, made);
      bar.append(around);
      return made;
    }

    function step(thread) {
      if (stepsOf(thread) < does(atomic).length) order.push(thread);
    }

    function shuffle() { // what is left, in an order by chance
      const left = shares.flatMap((_, t) => Array(does(atomic).length - stepsOf(t)).fill(t));
      while (left.length) order.push(...left.splice(Math.floor(Math.random() * left.length), 1));
    }

    function turnInto(now) { // with the threads in the order in which they first came
      if (now === atomic) return;
      const came = [...new Set(order)];
      order = now ? came : came.flatMap((t) => [t, t, t]);
      atomic = now;
    }

    const threads = told.shares[0].map((_, t) => button("", () => step(t)));
    threads.forEach((made) => made.classList.add("thread"));
    const undo = button("← back", () => order.pop());
    button("the rest by chance", shuffle);
    button("no step yet", () => { order = []; });
    const how = select("with", ["read, add, write", "atomicAdd"], (k) => turnInto(k === 1));
    const what = select("adding", told.shares.map((some) => some.map(text).join(", ")), (k) => {
      shares = told.shares[k];
    });
    button("as at first", begin);

    bar.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
      if (event.target instanceof HTMLSelectElement) return; // which has keys of its own
      const thread = "0123456789".indexOf(event.key);
      if (thread >= 0 && thread < shares.length) step(thread);
      else if (event.key === "ArrowLeft" || event.key === "Backspace") order.pop();
      else return;
      event.preventDefault(); // the page does not turn
      event.stopPropagation();
      draw();
    });

    function draw() {
      left.innerHTML = drawing(shares, order, atomic);
      right.innerHTML = outcomes(shares, order, atomic);
      says.textContent = sentence(shares, order, atomic);
      threads.forEach((made, t) => {
        const next = does(atomic)[stepsOf(t)];
        made.textContent = `thread ${t} ${next || "is done"}`;
        made.setAttribute("aria-disabled", String(!next)); // and keeps the focus, for the keys
        made.style.borderColor = made.style.outlineColor = next ? COLOURS[next] : "";
      });
      undo.setAttribute("aria-disabled", String(!order.length));
      how.value = atomic ? 1 : 0;
      what.value = told.shares.indexOf(shares);
    }

    begin();
    draw();
    says.setAttribute("aria-live", "polite");
    says.before(bar);
    picture.dataset.alive = "";
  }

  window.stnlib = window.stnlib || {};
  window.stnlib.race = { simulate, finals, text, sentence, drawing, outcomes };

  const all = () => document.querySelectorAll(".touch-race[data-touch]:not([data-alive])").forEach(start);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", all);
  else all();
})();
