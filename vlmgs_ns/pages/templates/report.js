// What the page does beyond being read: a scene to turn.
"use strict";
(() => {
  const one = (selector, within = document) => within.querySelector(selector);

  const scene = one("#scene");
  if (scene && document.createElement("canvas").getContext("webgl2")) {
    one("#viewer").srcdoc = JSON.parse(scene.textContent);
    one("#viewer").hidden = false;
    one(".film")?.remove();
    one(".top").classList.add("alone");
  }
})();
