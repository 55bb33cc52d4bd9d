"use strict";

// Players: source and output of one video, drawn from the same frame number, so that they cannot drift apart.

const between = (value, low, high) => Math.min(high, Math.max(low, value));

class Player {
  constructor(root) {
    this.root = root;
    const data = root.dataset;
    for (const name of ["frames", "first", "columns", "width", "height", "rows", "fps", "total"]) {
      this[name] = Number(data[name]);
    }
    this.frame = 0;
    this.row = Number(data.row);
    this.sheets = { source: null, output: null };
    this.playing = null;
    this.frameSlider = root.querySelector("[data-do=frame]");
    this.rowSlider = root.querySelector("[data-do=row]");
    this.playButton = root.querySelector("[data-do=play]");
    this.speed = root.querySelector("[data-do=speed]");
    this.lines = [...root.querySelectorAll(".line:has(svg)")].map((line) => ({
      cursor: line.querySelector(".now"),
      value: line.querySelector(".value"),
      values: JSON.parse(line.dataset.values),
    }));
    for (const control of root.querySelectorAll("button, input, select")) control.disabled = false;
    this.listen();
    this.seek(Number(data.start));
    this.seekRow(this.row);
  }

  listen() {
    const on = (name, event, act) =>
      this.root.querySelector(`[data-do=${name}]`).addEventListener(event, act);
    on("play", "click", () => (this.playing === null ? this.play() : this.pause()));
    on("back", "click", () => this.step(-1));
    on("next", "click", () => this.step(1));
    on("frame", "input", () => { this.pause(); this.seek(Number(this.frameSlider.value)); });
    on("row", "input", () => this.seekRow(Number(this.rowSlider.value)));
    for (const button of this.root.querySelectorAll("button[data-frame]")) {
      button.addEventListener("click", () => this.show(Number(button.dataset.frame)));
    }
    // A click in a picture picks its row, one in an X-T slice or a line its frame; so does pulling the mouse.
    const pick = (canvas, act) => {
      const at = (event) => {
        const box = canvas.getBoundingClientRect();
        act((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
      };
      canvas.addEventListener("click", at);
      canvas.addEventListener("pointermove", (event) => {
        if (event.pointerType === "mouse" && event.buttons & 1) at(event);
      });
    };
    for (const canvas of this.root.querySelectorAll("canvas[data-show=picture]")) {
      pick(canvas, (x, y) => this.seekRow(Math.floor(y * this.height)));
    }
    for (const canvas of this.root.querySelectorAll("canvas[data-show=slice]")) {
      pick(canvas, (x, y) => { this.pause(); this.seek(Math.floor(y * this.frames)); });
    }
    for (const line of this.root.querySelectorAll(".line svg")) {
      pick(line, (x) => this.show(Math.floor(x * this.total)));
    }
  }

  // Pictures are decoded when they come near the window, and let go when they are far from it.
  async load() {
    this.wanted = true;
    const names = Object.keys(this.sheets);
    const made = await Promise.all(names.map(async (name) => {
      const image = new Image();
      image.src = this.root.querySelector(`[data-sheet=${name}]`).dataset.source;
      await image.decode();
      return createImageBitmap(image);
    }));
    if (!this.wanted || this.sheets.source) return made.forEach((sheet) => sheet.close());
    names.forEach((name, place) => { this.sheets[name] = made[place]; });
    this.root.dataset.loaded = "";
    this.drawPictures();
    this.drawSlices();
  }

  unload() {
    this.wanted = false;
    this.pause();
    for (const name of Object.keys(this.sheets)) {
      if (this.sheets[name]) this.sheets[name].close();
      this.sheets[name] = null;
    }
    delete this.root.dataset.loaded;
  }

  // Left upper corner of a frame on its sheet.
  corner(frame) {
    return [(frame % this.columns) * this.width, Math.floor(frame / this.columns) * this.height];
  }

  each(show, draw) {
    for (const canvas of this.root.querySelectorAll(`canvas[data-show=${show}]`)) {
      const sheet = this.sheets[canvas.dataset.of];
      if (!sheet) continue;
      const pen = canvas.getContext("2d");
      pen.imageSmoothingEnabled = false;
      draw(pen, sheet);
    }
  }

  drawPictures() {
    const [x, y] = this.corner(this.frame);
    this.each("picture", (pen, sheet) => {
      pen.drawImage(sheet, x, y, this.width, this.height, 0, 0, this.width, this.height);
    });
  }

  drawSlices() {
    this.each("slice", (pen, sheet) => {
      for (let frame = 0; frame < this.frames; frame++) {
        const [x, y] = this.corner(frame);
        pen.drawImage(sheet, x, y + this.row, this.width, 1, 0, frame, this.width, 1);
      }
    });
  }

  seek(frame) {
    this.frame = between(frame, 0, this.frames - 1);
    const number = this.first + this.frame;
    this.frameSlider.value = this.frame;
    this.frameSlider.setAttribute("aria-valuetext", `frame ${number}`);
    this.root.querySelector("[data-say=frame]").textContent = number;
    this.root.style.setProperty("--time", (this.frame + 0.5) / this.frames);
    for (const { cursor, value, values } of this.lines) {
      cursor.setAttribute("x1", number + 0.5);
      cursor.setAttribute("x2", number + 0.5);
      value.textContent = values[this.frame] ?? "–";
    }
    this.drawPictures();
  }

  seekRow(row) {
    this.row = between(row, 0, this.height - 1);
    const real = Math.floor(((this.row + 0.5) / this.height) * this.rows);
    this.rowSlider.value = this.row;
    this.rowSlider.setAttribute("aria-valuetext", `row ${real}`);
    this.root.querySelector("[data-say=row]").textContent = real;
    this.root.style.setProperty("--row", (this.row + 0.5) / this.height);
    this.drawSlices();
  }

  // Frame numbers of the video, not of the part of it that is on the page.
  show(number) {
    this.pause();
    this.seek(number - this.first);
  }

  step(by) {
    this.pause();
    this.seek((this.frame + by + this.frames) % this.frames);
  }

  play() {
    let last = null;
    let rest = 0;
    const tick = (now) => {
      rest += last === null ? 0 : ((now - last) / 1000) * this.fps * Number(this.speed.value);
      last = now;
      const whole = Math.floor(rest);
      rest -= whole;
      if (whole) this.seek((this.frame + whole) % this.frames);
      this.playing = requestAnimationFrame(tick);
    };
    this.playing = requestAnimationFrame(tick);
    this.playButton.textContent = "Pause";
  }

  pause() {
    if (this.playing !== null) cancelAnimationFrame(this.playing);
    this.playing = null;
    this.playButton.textContent = "Play";
  }
}

const players = new Map([...document.querySelectorAll(".player")].map((root) => [root, new Player(root)]));

const watch = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const player = players.get(target);
      if (isIntersecting) player.load();
      else player.unload();
    }
  },
  { rootMargin: "100% 0px" },
);
for (const root of players.keys()) watch.observe(root);

// A link to a frame shows it in its player.
for (const link of document.querySelectorAll("a[data-frame]")) {
  link.addEventListener("click", () => {
    const section = document.getElementById(link.hash.slice(1));
    const player = players.get(section.querySelector(".player"));
    if (player) player.show(Number(link.dataset.frame));
  });
}

// Tables that can be sorted by a column: unknown values last, whichever way.
for (const button of document.querySelectorAll("th button[data-sort]")) {
  button.disabled = false;
  button.addEventListener("click", () => {
    const heading = button.parentElement;
    const table = heading.closest("table");
    const place = heading.cellIndex;
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[place].dataset.value ?? row.cells[place].textContent;
    const number = button.dataset.sort === "number";
    const rows = [...table.tBodies[0].rows].sort((left, right) => {
      const [a, b] = [key(left), key(right)];
      if (number && (a === "" || b === "")) return (a === "") - (b === "");
      const order = number ? Number(a) - Number(b) : a.localeCompare(b);
      return down ? -order : order;
    });
    table.tBodies[0].append(...rows);
  });
}

document.documentElement.dataset.ready = "";
