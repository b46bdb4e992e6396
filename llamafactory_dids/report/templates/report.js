"use strict";
// The table sorts and filters its own rows; the chart draws the curves of the rows that are ticked.
(() => {
  const body = document.querySelector("#domains tbody");
  if (!body) return;
  const rows = [...body.rows];
  const count = document.getElementById("count");
  const data = JSON.parse(document.getElementById("curves").textContent);
  const say = (text, values) => Object.entries(values).reduce(
    (said, [key, value]) => said.replace(`{${key}}`, value), data.words[text]);
  document.getElementById("search").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = say("{shown} of {total}", { shown, total: rows.length });
  });
  const heads = [...document.querySelectorAll("#domains thead th")];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const numeric = head.dataset.kind === "number";
      rows.sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        const order = numeric ? (x === "" ? -Infinity : +x) - (y === "" ? -Infinity : +y) || 0 : x.localeCompare(y);
        return down ? -order : order;
      });
      body.append(...rows);
    });
  });

  const chart = document.getElementById("chart"), readout = document.getElementById("readout");
  const [width, height, left, bottom, top] = [1100, 300, 60, 34, 14];
  const last = data.samples[data.samples.length - 1] || 1;
  const tail = 24; // what the last update chose is seen too
  const x = (samples) => left + (width - left - 12 - tail) * samples / last;
  const make = (name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    chart.append(node);
    return node;
  };
  let chosen = [];
  // 1, 2 or 5 times a power of ten, so that an axis has round numbers
  const stepFor = (peak) => {
    const power = 10 ** Math.floor(Math.log10(peak / 4));
    return power * [1, 2, 5, 10].find((times) => times * power >= peak / 5.01);
  };
  const percent = (value) => `${(100 * value / data.unit).toPrecision(3)}%`;
  const draw = () => {
    chart.replaceChildren();
    chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const peak = Math.max(1, ...chosen.flatMap((i) => data.values[i])) * 1.05;
    const step = stepFor(peak);
    const y = (value) => height - bottom - (height - bottom - top) * value / peak;
    for (let value = 0; value <= peak; value += step) {
      make("line", { x1: left, x2: width - 12, y1: y(value), y2: y(value), stroke: "#e4e7ed" });
      make("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, `${+(100 * value / data.unit).toPrecision(6)}%`);
    }
    const tick = stepFor(last);
    for (let samples = 0; samples <= last; samples += tick) {
      make("text", { x: x(samples), y: height - 16, "text-anchor": "middle" }, samples.toLocaleString("en"));
    }
    make("text", { x: (left + width) / 2, y: height - 2, "text-anchor": "middle" }, data.words["training samples seen"]);
    chosen.forEach((i) => {
      let path = "";
      data.values[i].forEach((value, u) => {
        path += `${u ? `H${x(data.samples[u]).toFixed(1)}V` : `M${left},`}${y(value).toFixed(1)}`;
      });
      make("path", { d: path + `H${width - 12}`, fill: "none", "stroke-width": 2, stroke: data.colours[i] });
    });
    describe(data.samples.length - 1);
  };
  const describe = (u) => {
    readout.replaceChildren(say("after {samples} samples:", { samples: data.samples[u].toLocaleString("en") }), " ");
    chosen.forEach((i) => {
      const mark = document.createElement("b");
      mark.style.color = data.colours[i];
      mark.textContent = "━ ";
      const word = document.createElement("span"); // in the text's own colour, as the light ones are hard to read
      word.append(mark, `${data.names[i]} ${percent(data.values[i][u])}`);
      readout.append(word, " ");
    });
  };
  chart.addEventListener("mousemove", (event) => {
    const box = chart.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width * width - left) / (width - left - 12 - tail) * last;
    let u = 0;
    while (u + 1 < data.samples.length && data.samples[u + 1] <= at) u++;
    describe(u);
  });
  body.addEventListener("change", (event) => {
    const i = +event.target.value;
    chosen = chosen.filter((other) => other !== i);
    if (event.target.checked) chosen.push(i);
    draw();
  });
  for (const box of body.querySelectorAll("input")) {
    box.checked = data.chosen.includes(+box.value);
    if (box.checked) chosen.push(+box.value);
  }
  draw();
})();
