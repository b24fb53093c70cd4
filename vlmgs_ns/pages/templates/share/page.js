// The page: viewpoints, words, pointer, keys.

const BLUR = 0.3; // pixels² of a photo, as in training
const FRAME_MS = 33; // resolution falls while the scene moves where a frame takes longer
const element = (id) => document.getElementById(id);
const embedded = parent !== self; // in another page, such as a report

async function start() {
  document.body.classList.toggle("embedded", embedded);
  const scene = JSON.parse(element("scene").textContent);
  const gaussians = decode(await inflated("gaussians"), scene.gaussians), { count } = scene.gaussians;
  const relevancies = scene.phrases.length ? await inflated("relevancies") : new Uint8Array();
  const rows = scene.phrases.map((_, k) => relevancies.subarray(k * count, (k + 1) * count));
  const canvas = element("view"), outline = document.querySelector("#box path");
  const renderer = new Renderer(canvas, gaussians, scene.gaussians, scene.antialiased);
  const camera = new Camera(scene.up, scene.unit / 50, scene.unit * 3);
  let at = scene.start, lens = scene.views[at].lens, phrase = -1, threshold = scene.threshold;

  // Drawing: one frame at a time, whenever something has changed.
  let changed = false, sorting = false, sorted = null, quality = 1, before = 0, rest = 0, flight = null;
  const request = backgroundSorter(gaussians.places, (order) => {
    renderer.sort(order);
    sorting = false;
    draw();
  });

  /** The photo's rectangle in the canvas, in CSS pixels: as large as fits. */
  function frame() {
    const scale = Math.min(canvas.clientWidth / lens.width, canvas.clientHeight / lens.height);
    const [width, height] = [lens.width * scale, lens.height * scale];
    return { scale, width, height, left: (canvas.clientWidth - width) / 2, top: (canvas.clientHeight - height) / 2 };
  }

  function view(ratio) {
    const { scale, left, top } = frame(), zoom = scale * ratio;
    return {
      turn: camera.turn, eye: camera.eye, size: [canvas.width, canvas.height], blur: BLUR * Math.max(1, zoom) ** 2,
      focal: [lens.fx * zoom, lens.fy * zoom], centre: [left * ratio + lens.cx * zoom, top * ratio + lens.cy * zoom],
    };
  }

  function draw() {
    if (canvas.dataset.state === "still") canvas.dataset.state = "resting";
    if (!changed) requestAnimationFrame(paint);
    changed = true;
  }

  function paint(now) {
    changed = false;
    if (flight) {
      const share = Math.min(1, (now - flight.begin) / flight.duration);
      camera.between(flight.from, flight.to, share * share * (3 - 2 * share));
      if (share === 1) {
        camera.stand(flight.to);
        flight = null;
      }
      moving();
    }
    const inMotion = canvas.dataset.state === "moving";
    if (inMotion && before) quality = Math.max(0.3, Math.min(1, quality * Math.sqrt(FRAME_MS / Math.max(now - before, 1))));
    before = inMotion ? now : 0;
    const ratio = Math.min(devicePixelRatio, 2) * (inMotion ? quality : 1);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.max(1, Math.round(side * ratio)));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    if (!sorting && (!sorted || dot(sorted, camera.forward) < 0.9999)) {
      sorting = true;
      sorted = [...camera.forward];
      request(sorted);
    }
    if (canvas.dataset.state === "loading" && sorting) return; // no order yet
    renderer.draw(view(ratio), phrase < 0 ? "none" : chosenEffect(), threshold);
    const box = element("boxed").checked && phrase >= 0 ? scene.boxes[phrase] : null;
    const edges = box ? boxEdges(box.corners, view(1), NEAR) : [];
    outline.setAttribute("d", edges.map(([a, b]) => `M${a.join(" ")}L${b.join(" ")}`).join(""));
    if (flight) draw();
    else if (!inMotion && !sorting) canvas.dataset.state = "still";
  }

  /** Note that the camera moves; a moment after the last time, the view is drawn in full. */
  function moving() {
    if (canvas.dataset.state === "loading") return draw();
    canvas.dataset.state = "moving";
    clearTimeout(rest);
    rest = setTimeout(() => {
      canvas.dataset.state = "resting";
      draw();
    }, 200);
    draw();
  }

  // Viewpoints, and the photo over the render.
  const list = element("viewpoint"), photo = element("photo"), slider = element("slider");
  scene.views.forEach(({ name, held }, k) => list.append(new Option(held ? `${name} (held out)` : name, k)));

  function showPhoto() {
    const source = at < 0 ? undefined : scene.views[at].photo, { width, height, left, top } = frame();
    element("compare").hidden = !source;
    photo.hidden = !source || Number(slider.value) === 0;
    if (source && photo.src !== source) photo.src = source;
    const shown = { width, height, left, top };
    for (const [side, value] of Object.entries(shown)) photo.style[side] = `${value}px`;
    photo.style.clipPath = `inset(0 ${100 - slider.value}% 0 0)`;
  }

  function goTo(pose) {
    const duration = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1 : 600;
    flight = { from: { eye: camera.eye, turn: camera.turn, pivot: camera.pivot }, to: pose, begin: performance.now(), duration };
    moving();
  }

  function visit(k) {
    at = (k + scene.views.length) % scene.views.length;
    lens = scene.views[at].lens;
    list.value = at;
    goTo(scene.views[at]);
    showPhoto();
  }

  /** Leave the photo's viewpoint. */
  function leave() {
    flight = null;
    at = -1;
    list.value = "";
    showPhoto();
    moving();
  }

  list.onchange = () => visit(Number(list.value));
  const step = (by) => visit((at < 0 ? nearest() : at) + (at < 0 && by > 0 ? 0 : by));
  const nearest = () => {
    const far = scene.views.map(({ eye, turn }) => Math.hypot(...add(eye, camera.eye, -1)) / scene.unit - dot(turn[2], camera.forward));
    return far.indexOf(Math.min(...far));
  };
  element("previous").onclick = () => step(-1);
  element("next").onclick = () => step(1);
  slider.oninput = showPhoto;

  // Words.
  const answer = element("answer"), bar = element("threshold");
  const chosenEffect = () => document.querySelector("input[name=effect]:checked").value;
  const buttons = scene.phrases.map((text, k) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.onclick = () => choose(phrase === k ? -1 : k);
    element("phrases").append(button);
    return button;
  });
  element("words").hidden = !rows.length;
  bar.value = threshold;

  function choose(k) {
    phrase = k;
    buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === k)));
    if (k >= 0) renderer.mark(rows[k]);
    say();
    draw();
  }

  /** Write how much a phrase marks, or what was clicked. */
  function say(text = "") {
    element("level").textContent = threshold.toFixed(2);
    const marked = phrase < 0 ? 0 : rows[phrase].reduce((sum, byte) => sum + (byte / 255 > threshold), 0);
    const box = phrase >= 0 && element("boxed").checked ? scene.boxes[phrase] : null;
    const size = box ? `; box of ${box.size.map((side) => side.toPrecision(2)).join(" × ")} in the units of the data` : "";
    const counted = phrase < 0 ? "" : `“${scene.phrases[phrase]}”: ${marked.toLocaleString("en")} of ${count.toLocaleString("en")} Gaussians${size}`;
    answer.textContent = text || counted;
  }

  bar.oninput = () => {
    threshold = Number(bar.value);
    say();
    draw();
  };
  document.querySelectorAll("input[name=effect]").forEach((input) => { input.onchange = draw; });
  element("boxed").onchange = () => {
    say();
    draw();
  };

  /** What is at a place of the canvas, in CSS pixels. */
  function look(x, y, of) {
    const ratio = canvas.width / canvas.clientWidth;
    return renderer.look(view(ratio), [x * ratio, y * ratio], of, scene.farthest);
  }

  function ask(x, y) {
    if (!rows.length) return;
    const { opacity, relevancy } = look(x, y, rows), best = relevancy.indexOf(Math.max(...relevancy));
    if (opacity < 0.5) return say("Nothing is there.");
    const known = relevancy[best] > threshold, score = relevancy[best].toFixed(2);
    choose(known ? best : -1);
    say(known ? `That is “${scene.phrases[best]}”, relevancy ${score}.` : `None of these phrases; nearest is “${scene.phrases[best]}”, relevancy ${score}.`);
  }

  // Pointer: one finger or button turns, two fingers or another button shift, wheel and pinch zoom, a click asks.
  const fingers = new Map();
  let travelled = 0;
  const spread = () => {
    const [a, b] = [...fingers.values()];
    return { apart: Math.hypot(a[0] - b[0], a[1] - b[1]), middle: [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2] };
  };
  const shift = (dx, dy) => {
    const { scale } = frame();
    camera.move(-dx / (lens.fx * scale), -dy / (lens.fy * scale), 0);
    leave();
  };
  canvas.onpointerdown = (event) => {
    if (!fingers.size) travelled = 0;
    fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
    canvas.setPointerCapture(event.pointerId);
  };
  canvas.onpointermove = (event) => {
    if (!fingers.has(event.pointerId)) return;
    const [x, y] = fingers.get(event.pointerId), [dx, dy] = [event.offsetX - x, event.offsetY - y];
    travelled += Math.abs(dx) + Math.abs(dy);
    const earlier = fingers.size === 2 ? spread() : null;
    fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
    if (travelled < 4) return;
    if (earlier) {
      const { apart, middle } = spread();
      camera.zoom(earlier.apart / Math.max(apart, 1));
      shift(middle[0] - earlier.middle[0], middle[1] - earlier.middle[1]);
    } else if (event.shiftKey || event.buttons > 1) shift(dx, dy);
    else {
      camera.orbit(5 * dx / canvas.clientHeight, 5 * dy / canvas.clientHeight);
      leave();
    }
  };
  canvas.onpointerup = canvas.onpointercancel = (event) => {
    fingers.delete(event.pointerId);
    if (event.type === "pointerup" && travelled < 4 && event.button === 0) ask(event.offsetX, event.offsetY);
  };
  canvas.ondblclick = (event) => {
    const { opacity, depth } = look(event.offsetX, event.offsetY, []), { scale, left, top } = frame();
    if (opacity < 0.5) return;
    const across = (event.offsetX - left - lens.cx * scale) / (lens.fx * scale), down = (event.offsetY - top - lens.cy * scale) / (lens.fy * scale);
    const point = [across, down, 1].reduce((sum, value, k) => add(sum, camera.turn[k], value * depth), camera.eye);
    leave();
    goTo(camera.towards(point, 0.4));
  };
  canvas.addEventListener("wheel", (event) => {
    if (embedded && document.activeElement !== canvas) return; // the wheel is the outer page's until one clicks
    event.preventDefault();
    camera.zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 400))));
    leave();
  }, { passive: false });
  canvas.oncontextmenu = (event) => event.preventDefault();

  const keys = {
    ArrowLeft: () => camera.orbit(-0.1, 0), ArrowRight: () => camera.orbit(0.1, 0),
    ArrowUp: () => camera.orbit(0, -0.1), ArrowDown: () => camera.orbit(0, 0.1),
    w: () => camera.move(0, 0, 0.08), s: () => camera.move(0, 0, -0.08), a: () => camera.move(-0.08, 0, 0), d: () => camera.move(0.08, 0, 0),
    e: () => camera.move(0, -0.08, 0), q: () => camera.move(0, 0.08, 0), "+": () => camera.zoom(0.9), "-": () => camera.zoom(1.1),
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=range], select")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (keys[key] && !(key.startsWith("Arrow") && event.target.matches("input"))) {
      keys[key]();
      leave();
    } else if (key === "n") step(1);
    else if (key === "p") step(-1);
    else if (key === "0" || key === "Escape") choose(-1);
    else if (key >= "1" && key <= "9" && rows[key - 1]) choose(phrase === key - 1 ? -1 : key - 1);
    else return;
    event.preventDefault();
  });

  new ResizeObserver(() => { showPhoto(); draw(); }).observe(canvas);
  canvas.addEventListener("webglcontextlost", () => { element("message").textContent = "The graphics card was taken away; load the page again."; });
  camera.stand(scene.views[at]);
  list.value = at;
  choose(-1);
  showPhoto();
}

start().catch((error) => {
  document.body.dataset.state = "failed";
  const reason = error.message === "no WebGL2" ? "This browser has no WebGL2, which drawing the scene needs." : `The scene cannot be drawn: ${error.message}`;
  element("message").textContent = `${reason} One of its photos:`;
  const first = JSON.parse(element("scene").textContent).views.find(({ photo }) => photo);
  if (first) Object.assign(element("photo"), { src: first.photo, hidden: false });
});
