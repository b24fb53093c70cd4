// What the page does beyond being read: a scene to turn, photos over renders, pictures in full, values of curves, copying.
"use strict";
(() => {
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (tag, properties, ...inside) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...inside);
    return element;
  };

  // The scene, in place of the turntable.
  const scene = one("#scene");
  if (scene && make("canvas").getContext("webgl2")) {
    one("#viewer").srcdoc = JSON.parse(scene.textContent);
    one("#viewer").hidden = false;
    one(".film")?.remove();
    one(".top").classList.add("alone");
  }

  // Photos over renders.
  for (const row of all("#views .row")) {
    const photo = one("[data-kind=photo]", row), render = one("[data-kind=trained]", row), over = photo.cloneNode();
    over.className = "over";
    over.removeAttribute("data-kind");
    const slider = make("input", { type: "range", min: 0, max: 100, value: 0, ariaLabel: "How much of the photo covers the render" });
    render.parentElement.classList.add("compare");
    render.after(over, slider, make("span", { className: "ends soft" }, make("span", {}, "render"), make("span", {}, "photo")));
  }
  addEventListener("input", ({ target }) => {
    if (target.matches(".compare input")) target.parentElement.style.setProperty("--share", `${target.value}%`);
  });

  // Pictures in full.
  const dialog = make("dialog", { ariaLabel: "Picture" });
  document.body.append(dialog);
  function enlarge(picture) {
    const figure = picture.closest("figure").cloneNode(true), shown = one("img", figure);
    figure.style.setProperty("--ratio", shown.width / shown.height);
    all("input", figure).forEach((slider) => { slider.value = parseFloat(figure.style.getPropertyValue("--share")) || 0; });
    dialog.replaceChildren(figure, make("button", { type: "button", textContent: "Close" }));
    dialog.showModal();
  }
  const pictures = all("main figure img:not(.over)");
  pictures.forEach((picture) => Object.assign(picture, { tabIndex: 0, role: "button", onclick: () => enlarge(picture) }));
  addEventListener("keydown", (event) => {
    if (event.key === "Enter" && pictures.includes(event.target)) enlarge(event.target);
  });
  dialog.addEventListener("click", ({ target }) => {
    if (!target.matches("figure *:not(img), figure")) dialog.close();
  });

  // Values of curves: those at the pointer stand in the legend.
  for (const figure of all(".chart")) {
    const plot = one("svg", figure), curves = JSON.parse(plot.dataset.curves), legend = all(".keys b", figure);
    const last = legend.map((number) => number.textContent), where = make("span", { className: "soft" });
    const places = curves.map((_, k) => [...one(`.line-${k} path`, plot).getAttribute("d").matchAll(/[ML] (\S+) \S+/g)].map(([, x]) => Number(x)));
    const mark = document.createElementNS(plot.namespaceURI, "path");
    one("figcaption", figure).append(where);
    plot.append(mark);
    plot.onpointermove = plot.onpointerdown = ({ clientX }) => {
      const { left, width } = plot.getBoundingClientRect(), x = (clientX - left) / width * plot.viewBox.baseVal.width;
      const nearest = places.map((all_) => all_.reduce((best, place, k) => (Math.abs(place - x) < Math.abs(all_[best] - x) ? k : best), 0));
      curves.forEach(({ values }, k) => { legend[k].textContent = values[nearest[k]]; });
      where.textContent = ` at iteration ${curves[0].steps[nearest[0]]}`;
      mark.setAttribute("d", `M${places[0][nearest[0]]} 34V248`);
    };
    plot.onpointerleave = () => {
      legend.forEach((number, k) => { number.textContent = last[k]; });
      where.textContent = "";
      mark.removeAttribute("d");
    };
  }

  // Commands.
  for (const command of all(".commands code")) {
    const text = command.textContent, button = make("button", { type: "button", textContent: "Copy" });
    button.onclick = async () => {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    };
    if (navigator.clipboard) command.prepend(button);
  }
})();
