"use strict";
// Draws the projection anew when a figure of the model is changed. The formula is that of model.rs.
(() => {
  const colours = ["#000000", "#0060a0", "#be4b00", "#007350", "#96326e", "#5f4b00", "#af1e2d"];
  const box = { width: 980, height: 460, left: 100, right: 932, top: 64, bottom: 402 };
  const text = (x, y, content, extra = "") =>
    `<text x="${x}" y="${y}" font-family="sans-serif" font-size="14" fill="#141414" ${extra}>${content}</text>`;
  const escape = (t) => t.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

  function cycles(column, misses, model) {
    const perExit = { bare: 0, depriv: model.exit_cycles_depriv }[column.backend] ?? model.exit_cycles_hardware;
    const references = column.nested ? model.references_per_nested_walk : model.references_per_walk;
    return column.instructions.map((count, i) =>
      (count * model.cycles_per_instruction + column.exits[i] * perExit) / misses + references * model.cycles_per_reference);
  }

  function mark(series, x, y) {
    const c = colours[series % colours.length];
    const polygon = (points) => `<polygon fill="${c}" points="${points.map(([a, b]) => `${x + a},${y + b}`).join(" ")}"/>`;
    switch (series % colours.length) {
      case 0: return `<rect fill="${c}" x="${x - 1}" y="${y - 7}" width="2" height="14"/>`;
      case 1: return `<circle fill="${c}" cx="${x}" cy="${y}" r="5"/>`;
      case 2: return polygon([[0, -6], [6, 5], [-6, 5]]);
      case 3: return polygon([[0, -6], [6, 0], [0, 6], [-6, 0]]);
      case 4: return `<circle fill="none" stroke="${c}" stroke-width="2" cx="${x}" cy="${y}" r="5"/>`;
      case 5: return `<rect fill="none" stroke="${c}" stroke-width="2" x="${x - 5}" y="${y - 5}" width="10" height="10"/>`;
      default: return polygon([[0, 6], [6, -5], [-6, -5]]);
    }
  }

  function draw(title, columns, lines) {
    const values = lines.flat().filter((v) => v > 0);
    const low = Math.floor(Math.log10(Math.min(...values))), high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values))));
    const right = Math.max(...columns[0].x);
    const px = (x) => box.left + (box.right - box.left) * x / right;
    const py = (y) => box.bottom - (box.bottom - box.top) * (Math.log10(Math.max(y, 10 ** low)) - low) / (high - low);
    let svg = `<svg role="img" aria-label="${title}" viewBox="0 0 ${box.width} ${box.height}" xmlns="http://www.w3.org/2000/svg">`;
    svg += `<rect width="${box.width}" height="${box.height}" fill="#fff"/>` + text(12, 24, title, 'style="font-size:18px"');
    let legend = 18;
    columns.forEach((c, i) => {
      svg += mark(i, legend, 44) + text(legend + 12, 49, escape(c.label));
      legend += 26 + 8 * c.label.length;
    });
    for (let e = low; e <= high; e++) {
      const y = py(10 ** e);
      svg += `<line x1="${box.left}" x2="${box.right}" y1="${y}" y2="${y}" stroke="#cdcdcd"/>`;
      svg += text(box.left - 8, y + 5, (10 ** e).toLocaleString("en"), 'text-anchor="end"');
    }
    for (let i = 0; i <= 10; i++) {
      const x = right * i / 10;
      svg += text(px(x), box.bottom + 20, +x.toFixed(2), 'text-anchor="middle"');
    }
    svg += text((box.left + box.right) / 2, box.bottom + 46, "changed page-table entries for each TLB miss", 'text-anchor="middle"');
    svg += text(20, (box.top + box.bottom) / 2, "cycles for each TLB miss",
      `text-anchor="middle" transform="rotate(-90 20 ${(box.top + box.bottom) / 2})"`);
    lines.forEach((line, i) => {
      const points = line.map((y, k) => [px(columns[i].x[k]), py(y)]);
      svg += `<polyline fill="none" stroke="${colours[i % colours.length]}" stroke-width="2" points="${points.join(" ")}"/>`;
      svg += points.map(([x, y]) => mark(i, x, y)).join("");
    });
    return svg + "</svg>";
  }

  function crossing(x, a, b) {
    for (let i = 1; i < x.length; i++) {
      const d0 = a[i - 1] - b[i - 1], d1 = a[i] - b[i];
      if (d0 <= 0 && d1 > 0) return x[i - 1] + (x[i] - x[i - 1]) * (-d0 / (d1 - d0));
    }
    return null;
  }

  function verdict(columns, lines) {
    const n = columns.findIndex((c) => c.nested);
    if (n < 0) return "";
    return columns.map((c, i) => {
      if (c.nested || c.backend === "bare") return "";
      const x = crossing(c.x, lines[i], lines[n]);
      const other = columns[n].label;
      if (x !== null) return `${c.label} is dearer than ${other} from ${x.toFixed(3)} changed entries for each TLB miss on.`;
      return lines[i][0] > lines[n][0] ? `${c.label} is dearer than ${other} throughout.` : `${c.label} is never dearer than ${other}.`;
    }).filter(Boolean).join(" ");
  }

  for (const section of document.querySelectorAll("section.model")) {
    const { misses, columns } = JSON.parse(section.querySelector("script").textContent);
    const title = section.querySelector(".plot svg").getAttribute("aria-label");
    const form = section.querySelector("form");
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => {
      const model = {};
      for (const input of form.querySelectorAll("input")) model[input.name] = Math.max(0, Number(input.value) || 0);
      const lines = columns.map((c) => cycles(c, misses, model));
      section.querySelector(".plot").innerHTML = draw(title, columns, lines);
      section.querySelector(".verdict").textContent = verdict(columns, lines);
    });
  }
  // Says that the script came to its end, for `gnomon bench page`.
  document.documentElement.dataset.editable = document.querySelectorAll("section.model").length;
})();
