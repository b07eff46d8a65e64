"use strict";
(() => {
  const root = document.documentElement;
  const runs = JSON.parse(document.getElementById("data").textContent);

  // ---- light and dark: the system's choice until a reader makes another ----

  const store = { // a browser may refuse storage, above all to a file
    get() { try { return localStorage.getItem("theme"); } catch { return null; } },
    set(theme) { try { localStorage.setItem("theme", theme); } catch { /* then it holds until the page is left */ } },
  };
  const system = matchMedia("(prefers-color-scheme: dark)");
  const toggle = document.getElementById("theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const label = () => {
    toggle.textContent = isDark() ? "light" : "dark";
    toggle.setAttribute("aria-label", `change to ${toggle.textContent} colours`);
  };
  const remembered = store.get();
  if (remembered === "light" || remembered === "dark") root.dataset.theme = remembered;
  toggle.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    store.set(root.dataset.theme);
    label();
  });
  system.addEventListener("change", label);
  toggle.hidden = false;
  label();

  // ---- tables: each section sorts within itself, what is missing stands last ----

  const keyOf = (row, column) => { // null where there is nothing to sort by
    const cell = row.children[column];
    const text = (cell?.dataset.value ?? cell?.textContent.replace("−", "-").replaceAll(",", "") ?? "").trim();
    if (text === "" || text === "n/a") return null;
    if (Number.isFinite(Number(text))) return Number(text);
    return cell.matches(".number") ? null : text; // "missing" where others have a number
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return a.localeCompare(b, "en", { numeric: true });
  };
  const sortBody = (body, column, direction, original) => {
    const rows = original.get(body);
    if (direction === "none") return body.append(...rows);
    const keyed = rows.filter((row) => !row.matches(".section")).map((row) => [keyOf(row, column), row]);
    const present = keyed.filter(([key]) => key !== null);
    present.sort(([a], [b]) => (direction === "descending" ? compare(b, a) : compare(a, b)));
    const missing = keyed.filter(([key]) => key === null);
    body.append(...rows.filter((row) => row.matches(".section")), ...[...present, ...missing].map(([, row]) => row));
  };
  const sortable = (table) => {
    const header = table.tHead && table.tHead.rows[table.tHead.rows.length - 1];
    if (!header) return;
    const original = new Map([...table.tBodies].map((body) => [body, [...body.rows]]));
    const titles = [...header.cells];
    let column = 0;
    for (const title of titles) {
      const own = column;
      column += title.colSpan;
      if (title.colSpan > 1 || !title.textContent.trim()) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...title.childNodes);
      title.append(button);
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: "none" }[title.getAttribute("aria-sort")] ?? "ascending";
        for (const other of titles) other.removeAttribute("aria-sort");
        if (next !== "none") title.setAttribute("aria-sort", next);
        for (const body of table.tBodies) sortBody(body, own, next, original);
      });
    }
  };
  document.querySelectorAll("#report table").forEach(sortable);

  // ---- a run's own page, at #run-<id>; whatever its files hold becomes text, never markup ----

  const make = (name, attributes, ...content) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...content);
    return node;
  };
  const draw = (name, attributes, ...content) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...content);
    return node;
  };
  const pairs = (items) =>
    make("dl", { class: "pairs" }, ...items.flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, value)]));
  const grid = (columns, rows, name) => {
    const heads = columns.map((column) => make("th", { scope: "col" }, column));
    const lines = rows.map((row) => make("tr", {}, ...row.map((value) => make("td", {}, value ?? ""))));
    return make("div", { class: "wide" }, make("table", { "aria-label": name },
      make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...lines)));
  };

  const ticks = (low, high) => {
    const rough = (high - low) / 5 || Math.abs(high) || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999) * power;
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(6)));
    return found;
  };
  const curve = (epochs, names, title) => {
    const shown = names.filter((name) => epochs[name]);
    const values = shown.flatMap((name) => epochs[name]).filter((value) => value !== null);
    if (!values.length) return [];
    const [width, height, left, right, top, bottom] = [400, 220, 44, 8, 8, 30];
    const span = (all) => { // not Math.min(...all): a long run has more epochs than a call takes arguments
      let [low, high] = [Infinity, -Infinity];
      for (const value of all) [low, high] = [Math.min(low, value), Math.max(high, value)];
      return low === high ? [low - 0.5, high + 0.5] : [low, high];
    };
    const [[x0, x1], [y0, y1]] = [span(epochs.epoch), span(values)];
    const x = (value) => left + ((value - x0) / (x1 - x0)) * (width - left - right);
    const y = (value) => height - bottom - ((value - y0) / (y1 - y0)) * (height - top - bottom);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title} by epoch: ${shown.join(", ")}` });
    for (const value of ticks(y0, y1)) {
      svg.append(draw("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
        draw("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, String(value)));
    }
    for (const value of ticks(x0, x1).filter(Number.isInteger)) {
      svg.append(draw("text", { x: x(value), y: height - bottom + 15, "text-anchor": "middle" }, String(value)));
    }
    svg.append(draw("text", { x: (left + width - right) / 2, y: height - 2, "text-anchor": "middle" }, "epoch"));
    const key = make("figcaption", { class: "key" }, make("span", {}, `${title}:`));
    shown.forEach((name, i) => {
      const parts = [[]];
      epochs[name].forEach((value, j) => {
        if (value === null) parts.push([]);
        else parts.at(-1).push(`${x(epochs.epoch[j]).toFixed(1)},${y(value).toFixed(1)}`);
      });
      const stroke = `stroke: var(--${["first", "second"][i]}); stroke-dasharray: ${["none", "5 3"][i]}`;
      for (const part of parts.filter((points) => points.length)) {
        const points = part.length === 1 ? [part[0], part[0]] : part;
        svg.append(draw("polyline", { class: "line", points: points.join(" "), style: `${stroke}; stroke-linecap: round` }));
      }
      key.append(make("span", {}, make("i", { style: `border-color: var(--${["first", "second"][i]}); border-top-style: ${["solid", "dashed"][i]}` }), name));
    });
    return [make("figure", {}, svg, key)];
  };
  const learned = (epochs) => {
    if (!epochs.epoch) return [];
    const columns = Object.keys(epochs);
    const rows = epochs.epoch.map((_, i) => columns.map((name) => (epochs[name][i] === null ? "" : String(epochs[name][i]))));
    return [make("h3", {}, "Learning curve"),
      make("div", { class: "curves" }, ...curve(epochs, ["training loss", "validation loss"], "loss"),
        ...curve(epochs, ["Top-1 %", "training Top-1 %"], "accuracy")),
      make("details", {}, make("summary", {}, `All ${rows.length} epochs as numbers`), grid(columns, rows, "epochs"))];
  };
  const failed = (failure) => failure === null || !Object.keys(failure).length ? [] : [make("h3", {}, "Failure"),
    make("div", { class: "failure" }, make("p", {}, make("strong", {}, failure.error ?? "unknown")),
      ...(failure.time || failure.host ? [make("p", { class: "about" }, [failure.time, failure.host].filter(Boolean).join(", "))] : []),
      ...(failure.traceback ? [make("pre", { tabindex: "0", "aria-label": "traceback" }, failure.traceback)] : []))];

  const page = (id, run) => {
    const [anchor, group, arm] = run.arm ?? ["runs", "", ""];
    const size = (bytes) => (bytes < 1000 ? `${bytes} B` : bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
    const link = (name) => make("a", { href: `../${encodeURIComponent(id)}/${encodeURIComponent(name)}` }, name);
    const siblings = Object.keys(runs).filter((other) => other !== id && run.arm && runs[other].arm && runs[other].arm[0] === anchor);
    const others = siblings.flatMap((other, i) => [i ? ", " : "", make("a", { href: `#run-${other}` }, other)]);
    return [
      make("p", { class: "back" }, make("a", { href: "#runs" }, "All runs"), ...(run.arm ? [" · ", make("a", { href: `#${anchor}` }, `${group}, ${arm}`)] : [])),
      make("h2", { tabindex: "-1" }, id),
      make("p", { class: "states" }, run.state),
      ...failed(run.failure),
      make("dl", { class: "facts" }, ...run.facts.map(([key, value]) => make("div", {}, make("dt", {}, key), make("dd", {}, value)))),
      ...learned(run.epochs),
      make("h3", {}, "Configuration"),
      make("div", { class: "columns" }, ...run.config.map(([name, items]) => make("section", {}, make("h4", {}, name), pairs(items)))),
      make("h3", {}, "Where it comes from"), pairs(run.origin),
      ...(run.segments.rows.length ? [make("h3", {}, "Trained in these segments"), grid(run.segments.columns, run.segments.rows, "segments")] : []),
      ...(run.log ? [make("h3", {}, `End of the log, ${run.log.name}`), make("pre", { tabindex: "0", "aria-label": "end of the log" }, run.log.lines.join("\n"))] : []),
      make("h3", {}, "Files"),
      make("ul", { class: "files" }, ...run.files.map(([name, bytes]) => make("li", {}, link(name), ` ${size(bytes)}`))),
      ...(others.length ? [make("p", {}, "Other seeds of this arm: ", ...others)] : []),
    ];
  };
  const absent = (id) => [
    make("p", { class: "back" }, make("a", { href: "#runs" }, "All runs")),
    make("h2", { tabindex: "-1" }, id),
    make("p", {}, "This run has no page here: it is unknown, has not begun, or was left out to keep the file small. ",
      make("code", {}, "python analyze.py FOLDER --explain ARM"), " prints the runs behind an arm."),
  ];

  const [report, own, title] = [document.getElementById("report"), document.getElementById("run"), document.title];
  let left = 0; // where the report was scrolled to
  const route = () => {
    let hash = location.hash.slice(1);
    try { hash = decodeURIComponent(hash); } catch { /* a lone %: taken as it is */ }
    const id = hash.startsWith("run-") ? hash.slice(4) : null;
    if (id !== null) {
      if (own.hidden) left = scrollY;
      own.replaceChildren(...(Object.hasOwn(runs, id) ? page(id, runs[id]) : absent(id)));
      own.querySelectorAll("table").forEach(sortable);
    }
    const returned = id === null && !own.hidden;
    own.hidden = id === null;
    report.hidden = id !== null;
    document.title = id === null ? title : `${id} · ${title}`;
    if (id !== null) {
      scrollTo(0, 0);
      own.querySelector("h2").focus({ preventScroll: true });
    } else if (returned) {
      const target = hash && document.getElementById(hash);
      if (target) target.scrollIntoView();
      else scrollTo(0, left);
    }
  };
  addEventListener("hashchange", route);
  if (location.hash.startsWith("#run-")) route();
  for (const wide of document.querySelectorAll(".wide, .drawing")) {
    if (wide.scrollWidth > wide.clientWidth) wide.tabIndex = 0; // so that the keyboard can scroll it
  }
})();
