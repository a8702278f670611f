"use strict";
(() => {
  const by = id => document.getElementById(id);
  const data = JSON.parse(by("data").textContent);
  const images = data.images;
  const classes = data.classes.map(one => one.name);
  const newLabels = data.task === "labels";
  const FILE = newLabels ? "labels.jsonl" : "fixes.csv";
  const COLUMNS = ["path", "sha256", "action", "label"];
  const GAP = 12;
  const TEXT = 126; // pixels of a card below its picture

  // What a person decided: position of an image -> ["keep"], ["relabel", [names]] or ["drop"].
  let decisions = new Map();
  const steps = []; // what was there before each step, for undo
  const everything = images.map((_, i) => i);
  let list = everything; // positions of the images that fit the filters
  let current = 0; // a position in the list
  let columns = 1, cardWidth = 200, cardHeight = 300;
  const cards = new Map(); // position of an image -> its element, for those near the screen only
  let storing = true;

  function element(tag, properties = {}, ...children) {
    const { dataset, ...others } = properties;
    const made = Object.assign(document.createElement(tag), others);
    Object.assign(made.dataset, dataset || {});
    made.append(...children);
    return made;
  }

  const same = (a, b) => Boolean(a && b) && a.length === b.length && a.every(name => b.includes(name));
  const inWords = names => (names === null ? "no label" : names.join(", ") || "none of the labels");
  const percent = score => `${Math.min(Math.round(100 * score), score < 1 ? 99 : 100)} %`;

  // ---- progress, kept in the browser

  function readProgress() {
    const found = new Map(images.flatMap((image, i) => (image.kept ? [[i, ["keep"]]] : [])));
    let text = null;
    try {
      text = localStorage.getItem(data.key);
    } catch (error) {
      notKept();
    }
    if (text === null) return found;
    try {
      return new Map(JSON.parse(text).filter(([i]) => i < images.length));
    } catch (error) {
      return found;
    }
  }

  function keepProgress() {
    try {
      localStorage.setItem(data.key, JSON.stringify([...decisions]));
    } catch (error) {
      notKept();
    }
  }

  function notKept() {
    storing = false;
    tell(`This browser does not keep your progress: download ${FILE} before you close the page.`);
  }

  function tell(text) {
    by("trouble").textContent = text;
    by("trouble").hidden = !text;
  }

  window.addEventListener("beforeunload", event => {
    if (!storing && decisions.size) event.preventDefault();
  });
  window.addEventListener("storage", event => {
    if (event.key !== data.key) return; // another tab with the same page
    decisions = readProgress();
    steps.length = 0;
    update();
  });

  // ---- decisions

  function set(i, decision) {
    steps.push([i, decisions.get(i)]);
    if (decision) decisions.set(i, decision);
    else decisions.delete(i);
    keepProgress();
    cards.get(i)?.remove();
    cards.delete(i);
  }

  function decide(i, action, names) {
    if (i === undefined) return;
    let decision = action === "relabel" ? ["relabel", names] : [action];
    if (action === "relabel" && !newLabels && same(names, images[i].label)) decision = ["keep"];
    set(i, decision);
    const place = list[current] === i ? current : list.indexOf(i);
    filter(false);
    if (list[place] === i) {
      const open = list.findIndex((one, at) => at > place && !decisions.has(one));
      current = open >= 0 ? open : Math.min(place + 1, list.length - 1);
    } else {
      current = Math.max(0, Math.min(place, list.length - 1)); // it no longer fits the filters
    }
    update(false);
    intoView();
  }

  function accept(i) {
    const image = images[i];
    if (!image) return;
    if (image.suggested) decide(i, "relabel", image.suggested);
    else if (image.label && !newLabels) decide(i, "keep");
    else choose(i);
  }

  function keep(i) {
    if (newLabels || !images[i]?.label) accept(i);
    else decide(i, "keep");
  }

  function undo() {
    if (!steps.length) return;
    const [i, before] = steps.pop();
    if (before) decisions.set(i, before);
    else decisions.delete(i);
    keepProgress();
    cards.get(i)?.remove();
    cards.delete(i);
    filter(false);
    const place = list.indexOf(i);
    if (place >= 0) current = place;
    update(false);
    intoView();
  }

  function clear(i) {
    if (i === undefined || !decisions.has(i)) return;
    set(i, null);
    update();
  }

  /** A number key: the label, or where an image may have several, one more or one less of them. */
  function number(i, name) {
    if (i === undefined || name === undefined) return;
    if (!data.several) return decide(i, "relabel", [name]);
    const now = labelsNow(i);
    set(i, ["relabel", classes.filter(one => (one === name) !== now.includes(one))]);
    update();
  }

  function labelsNow(i) {
    const decision = decisions.get(i);
    return decision?.[0] === "relabel" ? decision[1] : images[i].label || images[i].suggested || [];
  }

  // ---- filters

  function fits(i, [kind, name, state, part]) {
    const image = images[i], decision = decisions.get(i);
    if (kind && !image.findings.some(([k]) => k === Number(kind))) return false;
    if (name && ![...(image.label || []), ...(image.suggested || [])].includes(classes[name])) return false;
    if (state === "open" && decision) return false;
    if (state === "done" && !decision) return false;
    if (["keep", "relabel", "drop"].includes(state) && decision?.[0] !== state) return false;
    return !part || image.path.toLowerCase().includes(part);
  }

  function filter(toTop = true) {
    const wanted = ["kind", "class", "state", "search"].map(id => by(id).value);
    wanted[3] = wanted[3].toLowerCase();
    list = wanted.some(Boolean) ? everything.filter(i => fits(i, wanted)) : everything;
    if (toTop) {
      current = 0;
      scrollTo(0, Math.min(scrollY, by("grid").offsetTop));
    }
    current = Math.max(0, Math.min(current, list.length - 1));
  }

  function options(select, found) {
    select.replaceChildren(...found.map(([value, text]) => element("option", { value, textContent: text })));
  }

  function makeFilters() {
    const ofKind = data.kinds.map((_, k) => images.filter(one => one.findings.some(([f]) => f === k)).length);
    options(by("kind"), [
      ["", `all (${images.length})`],
      ...data.kinds.map((kind, k) => [k, `${kind} (${ofKind[k]})`]),
    ]);
    by("kind").parentElement.hidden = data.kinds.length === 0;
    const numbers = new Map(classes.map(name => [name, 0]));
    for (const image of images) {
      for (const name of new Set([...(image.label || []), ...(image.suggested || [])])) {
        numbers.set(name, (numbers.get(name) || 0) + 1);
      }
    }
    const found = classes.map((name, c) => [c, `${name} (${numbers.get(name)})`]);
    options(by("class"), [["", "all"], ...found.filter(([c]) => numbers.get(classes[c]))]);
    options(by("state"), [
      ["", "all"],
      ["open", "not decided"],
      ["done", "decided"],
      ...(newLabels ? [] : [["keep", "kept"]]),
      ["relabel", newLabels ? "labelled" : "relabelled"],
      ["drop", "dropped"],
    ]);
    by("numbers").textContent = classes.slice(0, 9).map((name, c) => `${c + 1} ${name}`).join(", ");
  }

  // ---- the grid: only cards near the screen are elements

  function layout() {
    const width = by("grid").clientWidth;
    const wanted = width < 520 ? 160 : 232;
    columns = Math.max(1, Math.floor((width + GAP) / (wanted + GAP)));
    cardWidth = Math.floor((width - GAP * (columns - 1)) / columns);
    cardHeight = cardWidth + TEXT;
    for (const card of cards.values()) card.remove();
    cards.clear();
  }

  function draw() {
    const grid = by("grid"), step = cardHeight + GAP;
    grid.style.height = `${Math.max(0, Math.ceil(list.length / columns) * step - GAP)}px`;
    by("empty").hidden = list.length > 0;
    const top = -grid.getBoundingClientRect().top;
    const from = Math.max(0, Math.floor(top / step) - 1) * columns;
    const to = Math.min(list.length, (Math.floor((top + innerHeight) / step) + 2) * columns);
    const wanted = new Map();
    for (let place = from; place < to; place++) wanted.set(list[place], place);
    for (const [i, card] of cards) {
      if (!wanted.has(i)) {
        card.remove();
        cards.delete(i);
      }
    }
    let after = null;
    for (const [i, place] of wanted) {
      if (!cards.has(i)) cards.set(i, makeCard(i));
      const card = cards.get(i);
      card.style.left = `${(place % columns) * (cardWidth + GAP)}px`;
      card.style.top = `${Math.floor(place / columns) * step}px`;
      card.style.width = `${cardWidth}px`;
      card.style.height = `${cardHeight}px`;
      if (place === current) card.setAttribute("aria-current", "true");
      else card.removeAttribute("aria-current");
      const next = after ? after.nextSibling : grid.firstChild;
      if (card !== next) grid.insertBefore(card, next);
      after = card;
    }
  }

  function makeCard(i) {
    const image = images[i], decision = decisions.get(i);
    const picture = element("div", { className: "picture" });
    if (image.file) {
      picture.append(element("img", {
        loading: "lazy", decoding: "async", alt: image.path, className: image.small ? "small" : "",
        src: image.file,
      }));
    } else {
      picture.append(element("span", { className: "none", textContent: "no picture: it cannot be read" }));
    }
    if (image.score > 0 && !newLabels) {
      picture.append(element("span", { className: "score", textContent: percent(image.score) }));
    }
    if (decision) {
      picture.append(element("span", { className: `state ${decision[0]}`, textContent: done(decision) }));
    }
    const kinds = [...new Set(image.findings.map(([k]) => data.kinds[k]))].join(", ");
    const card = element(
      "div",
      { className: `card ${decision ? decision[0] : ""}`, dataset: { image: i } },
      picture,
      element("p", { className: "label", textContent: labelLine(image), title: labelLine(image) }),
      element("p", { className: "why", textContent: kinds, title: kinds }),
      element("p", { className: "path", textContent: image.path.split("/").pop(), title: image.path }),
      element("div", { className: "buttons" }, ...buttons(i, cardWidth < 220)),
    );
    card.setAttribute("role", "listitem");
    return card;
  }

  function labelLine(image) {
    const suggested = image.suggested ? inWords(image.suggested) : null;
    const sure = image.sure === undefined ? "" : ` ${percent(image.sure)}`;
    if (newLabels) return suggested === null ? "no suggestion" : `${suggested}?${sure}`;
    if (suggested === null || same(image.label, image.suggested)) return inWords(image.label);
    return `${inWords(image.label)} \u2192 ${suggested}${sure}`;
  }

  function done(decision) {
    if (decision[0] === "keep") return "kept";
    if (decision[0] === "drop") return "dropped";
    return `${newLabels ? "" : "\u2192 "}${inWords(decision[1])}`;
  }

  /** The buttons of an image: those of its card, or with their keys those at the end of the page. */
  function buttons(i, narrow, keys = false) {
    const image = images[i], decision = decisions.get(i);
    const made = [];
    const add = (name, action, text, key, title, pressed) => {
      const button = element("button", {
        type: "button", title, className: `${action} ${pressed ? "on" : ""}`,
        dataset: { act: name, image: i },
      });
      button.append(text, ...(keys ? [" ", element("kbd", { textContent: key })] : []));
      button.setAttribute("aria-pressed", String(Boolean(pressed)));
      made.push(button);
    };
    const isSuggested = decision?.[0] === "relabel" && same(decision[1], image.suggested);
    const other = decision?.[0] === "relabel" && !isSuggested;
    const suggested = image.suggested && (newLabels || !same(image.suggested, image.label));
    if (!newLabels && image.label) {
      add("keep", "keep", "Keep", "k", `keep: ${inWords(image.label)} is right`, decision?.[0] === "keep");
    }
    if (suggested && (keys || newLabels || !narrow)) {
      const words = inWords(image.suggested);
      add("accept", "relabel", `${newLabels ? "\u2713" : "\u2192"} ${words}`, "Enter", `label: ${words}`, isSuggested);
    }
    const narrowOther = narrow && !newLabels && decision?.[0] === "relabel";
    const others = suggested && (keys || newLabels || !narrow);
    const word = others ? "Other\u2026" : narrow ? "Label" : newLabels ? "Label\u2026" : "Relabel\u2026";
    add("choose", "relabel", word, "r", "choose the label", other || narrowOther);
    add("drop", "drop", "Drop", "d", "leave this image out", decision?.[0] === "drop");
    return made;
  }

  function detail() {
    const i = list[current], image = images[i];
    by("detail").hidden = !image;
    if (!image) return;
    const why = image.findings.map(([k, text]) => (text ? `${data.kinds[k]}: ${text}` : data.kinds[k]));
    by("what").replaceChildren(
      element("b", { textContent: image.path }),
      ` (${current + 1} of ${list.length}) `,
      element("span", { textContent: labelLine(image) }),
      image.score > 0 && !newLabels ? ` (${percent(image.score)})` : "",
      ...(why.length ? [". ", element("span", { className: "soft", textContent: why.join(". ") })] : []),
    );
    by("actions").replaceChildren(...buttons(i, false, true));
  }

  function counts() {
    const number = { keep: 0, relabel: 0, drop: 0 };
    for (const [action] of decisions.values()) number[action] += 1;
    const parts = newLabels
      ? [`${number.relabel} labelled`, `${number.drop} dropped`]
      : [`${number.keep} kept`, `${number.relabel} relabelled`, `${number.drop} dropped`];
    by("counts").textContent = `${decisions.size} of ${images.length} decided: ${parts.join(", ")}`;
    by("undo").disabled = !steps.length;
    const rows = newLabels ? number.relabel : decisions.size + staying().length;
    by("download").textContent = `Download ${FILE} (${rows})`;
    by("download").disabled = rows === 0;
  }

  function update(again = true) {
    if (again) {
      const i = list[current];
      filter(false);
      if (list.includes(i)) current = list.indexOf(i);
      for (const card of cards.values()) card.remove();
      cards.clear();
    }
    counts();
    detail();
    draw();
  }

  function intoView() {
    const grid = by("grid").getBoundingClientRect();
    const top = grid.top + Math.floor(current / columns) * (cardHeight + GAP);
    const bar = getComputedStyle(by("bar"));
    const least = 8 + (bar.position === "sticky" ? by("bar").offsetHeight + parseFloat(bar.top) : 0);
    const most = innerHeight - by("detail").offsetHeight - 8;
    if (top < least || cardHeight > most - least) scrollBy(0, top - least);
    else if (top + cardHeight > most) scrollBy(0, top + cardHeight - most);
    draw();
  }

  function go(place) {
    if (!list.length) return;
    current = Math.max(0, Math.min(place, list.length - 1));
    detail();
    intoView();
  }

  // ---- choosing a label

  let choosing; // the position of the image

  function choose(i) {
    if (i === undefined) return;
    choosing = i;
    by("choose-path").textContent = images[i].path;
    by("choose-filter").value = "";
    by("choose-save").hidden = !data.several;
    chosen = new Set(labelsNow(i));
    listClasses();
    by("choose").showModal();
    // On a phone the keyboard would cover the list.
    if (matchMedia("(pointer: fine)").matches) by("choose-filter").focus();
    else by("choose").focus();
  }

  let chosen = new Set();

  function matching() {
    const part = by("choose-filter").value.toLowerCase();
    return classes.filter(name => name.toLowerCase().includes(part));
  }

  function listClasses() {
    by("choose-list").replaceChildren(...matching().map(name => {
      if (!data.several) {
        const button = element("button", { type: "button", textContent: name, dataset: { name } });
        button.setAttribute("aria-pressed", String(chosen.has(name)));
        return button;
      }
      const box = element("input", { type: "checkbox", checked: chosen.has(name), dataset: { name } });
      return element("label", {}, box, " ", name);
    }));
  }

  function picked(names) {
    by("choose").close();
    decide(choosing, "relabel", names);
  }

  by("choose-filter").addEventListener("input", listClasses);
  by("choose-filter").addEventListener("keydown", event => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // not the form's own way to close the dialog
    const found = matching();
    if (!found.length) return;
    if (!data.several) return picked([found[0]]);
    if (!by("choose-filter").value) return save();
    chosen.has(found[0]) ? chosen.delete(found[0]) : chosen.add(found[0]);
    by("choose-filter").value = "";
    listClasses();
  });
  by("choose-list").addEventListener("click", event => {
    const name = event.target.dataset?.name;
    if (name !== undefined && !data.several) picked([name]);
  });
  by("choose-list").addEventListener("change", event => {
    const { name } = event.target.dataset;
    event.target.checked ? chosen.add(name) : chosen.delete(name);
  });
  const save = () => picked(classes.filter(name => chosen.has(name)));
  by("choose-save").addEventListener("click", save);
  by("choose-cancel").addEventListener("click", () => by("choose").close());

  // ---- the file

  const quoted = text => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const nameCells = new Map(data.classes.map(one => [one.name, one.cell ?? one.name]));
  const labelCell = names => (data.several ? JSON.stringify(names) : nameCells.get(names[0]) ?? names[0] ?? "");

  const order = () => [...decisions.keys()].sort((a, b) => a - b);

  const keyOf = image => (image.cell ?? image.path) + "\n" + image.sha256;
  const before = new Map((data.before || []).map(row => [row[0] + "\n" + row[1], row]));

  const here = new Map(images.map((image, i) => [keyOf(image), i]));

  /** What was decided before this page and is not decided again: it counts in the labels that are shown. */
  function staying() {
    return [...before].filter(([key, row]) => {
      const i = here.get(key);
      return i === undefined || (row[2] === "relabel" && !decisions.has(i));
    }).map(([, row]) => row);
  }

  function fixes() {
    const rows = staying();
    for (const i of order()) {
      const image = images[i], [action, names] = decisions.get(i), earlier = before.get(keyOf(image));
      const label = action === "relabel" ? names : action === "keep" ? image.label : null;
      // What is kept of an image that was relabelled before is its new label.
      if (action === "keep" && earlier?.[2] === "relabel") rows.push(earlier);
      else rows.push([image.cell ?? image.path, image.sha256, action, label ? labelCell(label) : ""]);
    }
    return rows;
  }

  function csv() {
    const rows = [COLUMNS, ...fixes()];
    return rows.map(row => row.map(quoted).join(",") + "\r\n").join("");
  }

  /** The images that had labels, and those that have one now, which are for training. */
  function jsonLines() {
    const rows = [...(data.labelled || [])];
    for (const i of order()) {
      const image = images[i], [action, names] = decisions.get(i);
      if (action !== "relabel") continue;
      const label = data.several ? JSON.stringify(names) : names[0];
      rows.push({ path: image.at ?? image.path, label, ...(data.labelled ? { part: "train" } : {}) });
    }
    return rows.map(row => JSON.stringify(row) + "\n").join("");
  }

  function download() {
    const address = URL.createObjectURL(new Blob([newLabels ? jsonLines() : csv()], { type: "text/plain" }));
    const link = element("a", { href: address, download: FILE });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 60000);
  }

  /** The rows of a CSV file, as names of columns -> texts; an apostrophe that begins a cell is not its text. */
  function parse(text) {
    const rows = [[""]];
    let inside = false;
    for (let at = text.charCodeAt(0) === 0xfeff ? 1 : 0; at < text.length; at++) {
      const row = rows.at(-1), char = text[at];
      if (inside) {
        if (char !== '"') row[row.length - 1] += char;
        else if (text[at + 1] === '"') row[row.length - 1] += text[++at];
        else inside = false;
      } else if (char === '"') inside = true;
      else if (char === ",") row.push("");
      else if (char === "\n") rows.push([""]);
      else if (char !== "\r") row[row.length - 1] += char;
    }
    const [head, ...found] = rows.filter(row => row.length > 1 || row[0]);
    const plain = cell => (cell ?? "").replace(/^'/, "");
    return found.map(row => Object.fromEntries((head || []).map((name, c) => [plain(name), plain(row[c])])));
  }

  /** What an earlier download of this page says: [position of an image, action, text of its label]. */
  function read(text) {
    if (!newLabels) {
      const place = new Map(images.map((image, i) => [image.path + "\n" + image.sha256, i]));
      return parse(text).map(row => [place.get(row.path + "\n" + row.sha256), row.action, row.label]);
    }
    const place = new Map(images.map((image, i) => [image.at ?? image.path, i]));
    const had = new Set((data.labelled || []).map(row => row.path));
    const rows = text.split("\n").filter(line => line.trim()).map(line => JSON.parse(line));
    return rows.filter(row => !had.has(row.path)).map(row => [place.get(row.path), "relabel", row.label]);
  }

  async function load(file) {
    let rows = [];
    try {
      rows = read(await file.text());
    } catch (error) {
      // it is not such a file
    }
    let used = 0;
    for (const [i, action, label] of rows) {
      const names = action === "relabel" ? namesOf(label) : [];
      if (i === undefined || !["keep", "relabel", "drop"].includes(action) || !names) continue;
      const isSame = action === "relabel" && !newLabels && same(names, images[i].label);
      set(i, isSame ? ["keep"] : action === "relabel" ? [action, names] : [action]);
      used += 1;
    }
    update();
    const left = rows.length - used;
    if (!used) tell(`${file.name} has no row on an image of this page: choose a ${FILE} that was downloaded here.`);
    else tell(left ? `${left} of the ${rows.length} rows are of other images or labels: left out.` : "");
  }

  function namesOf(text) {
    let names = [text];
    try {
      if (data.several) names = JSON.parse(text);
    } catch (error) {
      return null;
    }
    return Array.isArray(names) && names.every(name => classes.includes(name)) ? names : null;
  }

  // ---- events

  const acts = { keep, accept, choose, drop: i => decide(i, "drop") };

  document.addEventListener("click", event => {
    const button = event.target.closest("button");
    if (button && event.detail) button.blur(); // a key pressed next is for the image, not for the button
    const card = event.target.closest(".card");
    if (card) {
      const place = list.indexOf(Number(card.dataset.image));
      if (place >= 0) current = place;
    }
    if (button?.dataset.act) acts[button.dataset.act](Number(button.dataset.image));
    else if (card) go(current);
  });
  by("undo").addEventListener("click", undo);
  by("download").addEventListener("click", download);
  by("load").addEventListener("click", () => by("file").click());
  by("file").addEventListener("change", async event => {
    const [file] = event.target.files;
    if (file) await load(file);
    event.target.value = "";
  });
  for (const id of ["kind", "class", "state", "search"]) {
    by(id).addEventListener("input", () => {
      filter();
      update(false);
    });
  }
  for (const id of ["kind", "class", "state"]) {
    by(id).addEventListener("change", () => by(id).blur());
  }
  document.addEventListener("keydown", event => {
    if (by("choose").open || event.target.matches("input, select, textarea")) {
      if (event.key === "Escape" && event.target.id === "search") event.target.blur();
      return;
    }
    const i = list[current], key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if ((event.ctrlKey || event.metaKey) && key === "z") {
      event.preventDefault();
      return undo();
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (key === "Enter" && event.target.matches("button, summary")) return;
    const keys = {
      ArrowLeft: () => go(current - 1),
      ArrowRight: () => go(current + 1),
      ArrowUp: () => current >= columns && go(current - columns),
      ArrowDown: () => go(current + columns),
      Home: () => go(0),
      End: () => go(list.length - 1),
      Enter: () => accept(i),
      k: () => keep(i),
      d: () => decide(i, "drop"),
      r: () => choose(i),
      u: undo,
      c: () => clear(i),
    };
    if (/^[1-9]$/.test(key)) number(i, classes[key - 1]);
    else if (keys[key]) keys[key]();
    else return;
    event.preventDefault();
  });
  let asked = false;
  const soon = what => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      what();
    });
  };
  window.addEventListener("scroll", () => soon(draw), { passive: true });
  window.addEventListener("resize", () => {
    layout();
    update(false);
  });

  decisions = readProgress();
  makeFilters();
  filter();
  layout();
  update(false);
})();
