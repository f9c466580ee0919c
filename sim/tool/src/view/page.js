"use strict";
// The space-time diagram of one run. Everything it shows is in `page`; it keeps nothing but where the reader looks.
const page = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const canvas = $("canvas"), pen = canvas.getContext("2d");

const GUTTER = 128, AXIS = 34, DISK_ROWS = 5, PHASE_ROWS = 4;
const HEIGHT = { client: 30, node: 46 };
// What a band, and a bar of a disk, is called. Its kind is the name of its colour.
const BAND = { down: "down", starts: "starts", paused: "paused", full: "volume full", partition: "partition", slow: "slow" };
const DISK = { write: "write", sync: "sync", read: "read", name: "names" };

// The colours stand in the style, each for light and for dark. A canvas wants them as they are at present.
const TONES = [...document.styleSheets[0].cssRules[0].style].filter((name) => name.startsWith("--"));
const tone = {};
function readTones() {
  const probe = document.body.appendChild(document.createElement("i"));
  for (const name of TONES) {
    probe.style.color = `var(${name})`;
    tone[name.slice(2)] = getComputedStyle(probe).color;
  }
  probe.remove();
}
const wishesDark = window.matchMedia("(prefers-color-scheme: dark)");
// "light" or "dark"; as the reader's system has it, while nobody has chosen.
let chosenTheme = null;
const theme = () => chosenTheme ?? (wishesDark.matches ? "dark" : "light");
function applyTheme() {
  document.documentElement.style.colorScheme = theme();
  $("theme").textContent = theme() === "dark" ? "light" : "dark";
  readTones();
}

// Lanes from top to bottom: the clients, then each node with its disk below it.
const order = { client: 0, node: 1, disk: 2 };
const number = (lane) => Number(lane.name.match(/\d+/)[0]);
const roles = new Map((page.scenario?.clients ?? []).map((client, place) => [client.number ?? place, Object.keys(client.role)[0]]));
page.lanes.forEach((lane, id) => {
  lane.id = id;
  lane.role = lane.kind === "client" ? (roles.get(number(lane)) ?? "last reader") : "";
});
const lanes = [...page.lanes].sort((a, b) =>
  (a.node ?? -1) - (b.node ?? -1) || order[a.kind] - order[b.kind] || number(a) - number(b));
let bottom = AXIS, diskRow = 8;
// The lanes share the height that there is: clients and nodes up to eight times theirs, disks up to three times.
function lay(height) {
  const isDisk = (lane) => lane.kind === "disk", sum = (list, of) => list.reduce((all, lane) => all + of(lane), 0);
  for (const lane of lanes) lane.rows = rows.get(lane.id)?.length ?? 1;
  const disks = sum(lanes.filter(isDisk), (lane) => lane.rows * 8), gaps = 26 * lanes.filter(isDisk).length;
  const others = sum(lanes.filter((lane) => !isDisk(lane)), (lane) => HEIGHT[lane.kind]);
  const room = height - AXIS - PHASE_ROWS * 12 - 20 - gaps;
  const within = (stretch, most) => Math.max(1, Math.min(most, stretch));
  const diskStretch = within(room / (disks + others), 3), stretch = within((room - disks * diskStretch) / others, 8);
  diskRow = 8 * diskStretch;
  bottom = AXIS + 4;
  for (const lane of lanes) {
    lane.top = bottom;
    lane.height = isDisk(lane) ? lane.rows * diskRow + 12 : HEIGHT[lane.kind] * stretch;
    lane.middle = lane.top + lane.height / 2;
    bottom += lane.height + (isDisk(lane) ? 14 : 0);
  }
}

// A disk carries out one command of an owner (a log, a directory) after the other, and those of several owners at once,
// which lie in rows below each other.
const rows = new Map(), carriedOut = new Map();
for (const command of page.commands) {
  const owner = command.lane + command.text.split("#")[0], before = carriedOut.get(owner) ?? command.sent;
  command.begun = before[0] > command.sent[0] ? before : command.sent;
  command.until = command.done ?? command.lost ?? [Infinity, Infinity];
  carriedOut.set(owner, command.until);
  const ends = rows.get(command.lane) ?? rows.set(command.lane, []).get(command.lane);
  let row = ends.findIndex((end) => end <= command.begun[0]);
  if (row < 0) row = ends.length < DISK_ROWS ? ends.length : DISK_ROWS - 1;
  ends[row] = command.until[0];
  command.row = row;
}

const times = page.events.map((event) => event.time);
const last = Math.max(times.length - 1, 0), span = Math.max(times[last] ?? 1, 1);
const ledTo = new Map();
page.events.forEach((event, id) => {
  if (event.cause !== id) (ledTo.get(event.cause) ?? ledTo.set(event.cause, []).get(event.cause)).push(id);
});

// One dot for each lane that an event has a line in; the weightiest line gives its colour.
const weight = (line) => {
  if (line.kind === "violation") return [9, "bad"];
  if (line.kind === "fault" || line.kind === "process" || line.kind === "volume") return [8, "ink"];
  if (line.kind === "fact") {
    if (/^(Refused|SequenceRefused|Unknown|OutOfRange|Misbehaved)/.test(line.text)) return [7, "warn"];
    if (/^Acknowledged/.test(line.text)) return [6, "good"];
    if (/^Fetched/.test(line.text) && !/records: \[\]/.test(line.text)) return [6, "mark"];
    return [4, "fact"];
  }
  if (line.kind === "input") return [3, /FAILED/.test(line.text) ? "bad" : "input"];
  return line.kind === "client" ? [2, "faint"] : [0, "faint"];
};
const dots = [];
page.events.forEach((event, id) => {
  const seen = new Map();
  for (const line of event.lines) {
    if (line.lane === null) continue;
    const [heavy, colour] = weight(line), before = seen.get(line.lane);
    if (!before) seen.set(line.lane, { event: id, lane: line.lane, heavy, colour, about: [...line.about] });
    else {
      before.about.push(...line.about);
      if (heavy > before.heavy) Object.assign(before, { heavy, colour });
    }
  }
  dots.push(...seen.values());
});

// Where the reader looks: the event of the cursor, the left edge and the scale, what is selected.
const look = { cursor: 0, left: 0, scale: 4, mode: "event", partition: null, chosen: null };

function place(time) {
  let low = 0, high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < time) low = middle + 1; else high = middle;
  }
  if (low === 0 || low >= times.length) return low;
  return low - 1 + (time - times[low - 1]) / (times[low] - times[low - 1] || 1);
}
// A moment is [event, time]; the event may be unknown. Both modes are as wide as there are events.
const at = ([event, time]) => look.mode === "time" ? time / span * last : event ?? place(time);
const x = (moment) => GUTTER + (at(moment) - look.left) * look.scale;
const ofEvent = (event) => [event, times[event] ?? span];
const end = [last, span];
const width = () => canvas.clientWidth - GUTTER;
const ms = (time) => (time / 1e6).toFixed(time < 1e7 ? 3 : time < 1e9 ? 2 : 1) + " ms";
const isAbout = (thing) => look.partition === null || thing.about.includes(look.partition);
const faded = (thing) => isAbout(thing) ? 1 : 0.12;

let drawn = [];
function draw() {
  const ratio = window.devicePixelRatio || 1, wide = $("diagram").clientWidth;
  lay($("diagram").clientHeight);
  const high = Math.max(bottom + PHASE_ROWS * 12 + 6, $("diagram").clientHeight - 1);
  canvas.style.width = wide + "px";
  canvas.style.height = high + "px";
  canvas.width = wide * ratio;
  canvas.height = high * ratio;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, wide, high);
  drawn = [];
  const isSeen = (from, to) => to >= GUTTER - 20 && from <= wide + 20;
  pen.save();
  pen.beginPath();
  pen.rect(GUTTER, 0, wide - GUTTER, high);
  pen.clip();
  drawLanes(wide);
  for (const band of page.bands) drawBand(band, isSeen);
  drawAxis(wide, high);
  drawPhases(high);
  for (const command of page.commands) drawCommand(command, isSeen);
  for (const message of page.messages) drawMessage(message, isSeen);
  for (const dot of dots) drawDot(dot, isSeen);
  for (const mark of page.marks) drawMark(mark, isSeen);
  drawCursor(high);
  pen.restore();
  drawGutter(high);
  $("now").textContent = `event ${look.cursor} of ${last}, ${ms(times[look.cursor] ?? 0)}`;
  $("slider").value = look.cursor;
}

function drawLanes(wide) {
  for (const lane of lanes) {
    if (lane.kind === "disk") {
      pen.fillStyle = tone.disk;
      pen.fillRect(GUTTER, lane.top, wide, lane.height);
    } else line(GUTTER, lane.middle, wide, lane.middle, lane.kind === "node" ? tone.node : tone.line, lane.kind === "node" ? 1.5 : 1);
  }
}

function drawBand(band, isSeen) {
  const from = x(band.from), to = x(band.to ?? end), lane = page.lanes[band.lane];
  if (!isSeen(from, to)) return;
  const box = [from, lane.top + 3, Math.max(to - from, 2), lane.height - 6];
  pen.globalAlpha = band.kind === "down" ? 0.85 : 0.75;
  pen.fillStyle = tone[band.kind];
  pen.fillRect(...box);
  pen.globalAlpha = 1;
  if (to - from > 44) label(BAND[band.kind], Math.max(from, GUTTER) + 4, lane.top + lane.height - 7, band.kind === "down" ? "#fff" : tone.ink);
  drawn.push({ kind: "band", of: band, box, event: band.from[0] ?? Math.ceil(place(band.from[1])) });
}

function drawAxis(wide, high) {
  const step = 130;
  for (let place = 0; place * step < wide; place++) {
    const left = GUTTER + place * step, unit = look.left + place * step / look.scale;
    if (unit > last) break;
    const event = Math.max(0, Math.min(last, Math.round(unit)));
    const shown = look.mode === "time" ? unit / last * span : times[event];
    line(left, AXIS - 6, left, high, tone.grid);
    label(ms(Math.max(0, shown ?? 0)), left + 3, 12, tone.soft);
    if (look.mode === "event") label("#" + event, left + 3, 25, tone.faint);
  }
}

function drawPhases(high) {
  // The names lie below the lanes, in rows, so that phases that are close together can be read.
  const free = Array(PHASE_ROWS).fill(-Infinity);
  for (const [moment, name] of page.phases) {
    const left = x(moment), bad = name === "violation";
    const row = Math.max(0, free.findIndex((edge) => edge < left));
    free[row] = left + 60;
    line(left, AXIS - 8, left, bottom + 10 + row * 12, bad ? tone.bad : tone.phase, bad ? 2 : 1, [5, 4]);
    label(name, left + 4, bottom + 14 + row * 12, bad ? tone.bad : tone.phase);
  }
}

function drawCommand(command, isSeen) {
  const until = command.done ?? command.lost;
  const from = Math.min(x(command.begun), x(end)), to = x(until ?? end), lane = page.lanes[command.lane];
  if (!isSeen(from, to)) return;
  const box = [from, lane.top + 6 + command.row * diskRow, Math.max(to - from, 2), diskRow - 2];
  pen.globalAlpha = faded(command) * (until ? 1 : 0.5);
  pen.fillStyle = command.failed ? tone.bad : tone[command.kind];
  pen.fillRect(...box);
  if (command.lost || command.failed) cross(Math.max(to, from + 2), box[1] + box[3] / 2, 4, tone.bad, 2);
  pen.globalAlpha = 1;
  drawn.push({ kind: "command", of: command, box, event: command.sent[0] });
}

function drawMessage(message, isSeen) {
  const from = page.lanes[message.from], to = page.lanes[message.to];
  const until = message.got ?? message.lost ?? end, isLost = !message.got;
  let [x0, y0, x1, y1] = [x(message.sent), from.middle, x(until), to.middle];
  if (isLost) {
    // It does not get there.
    y1 = y0 + (y1 - y0) * 0.6;
    if (x1 - x0 < 8) x1 = x0 + 8;
  }
  if (!isSeen(x0, x1)) return;
  pen.globalAlpha = faded(message);
  const isChosen = look.chosen === message, colour = message.lost && isLost ? tone.bad : isChosen ? tone.chosen : tone.arrow;
  line(x0, y0, x1, y1, colour, isChosen ? 2.4 : 1.1, isLost && !message.lost ? [3, 3] : []);
  if (!isLost) arrowhead(x0, y0, x1, y1, colour);
  else if (message.lost) cross(x1, y1, 5, tone.bad, 2.2);
  if (x1 - x0 > 70 || (look.scale > 26 && isAbout(message))) label(message.label, (x0 + x1) / 2 + 3, (y0 + y1) / 2 - 2, tone.arrow, 10);
  pen.globalAlpha = 1;
  drawn.push({ kind: "message", of: message, line: [x0, y0, x1, y1], event: message.sent[0] });
}

function drawDot(dot, isSeen) {
  const lane = page.lanes[dot.lane], left = x(ofEvent(dot.event));
  if (lane.kind === "disk" || !isSeen(left, left)) return;
  pen.globalAlpha = dot.heavy >= 8 ? 1 : faded(dot);
  pen.fillStyle = tone[dot.colour];
  pen.beginPath();
  pen.arc(left, lane.middle, Math.min(2 + dot.heavy / 3, Math.max(1.5, look.scale / 2)), 0, 7);
  pen.fill();
  if (dot.event === look.cursor) {
    pen.strokeStyle = tone.ink;
    pen.lineWidth = 1.5;
    pen.beginPath();
    pen.arc(left, lane.middle, 7, 0, 7);
    pen.stroke();
  }
  pen.globalAlpha = 1;
  drawn.push({ kind: "dot", of: dot, box: [left - 4, lane.middle - 4, 8, 8], event: dot.event });
}

function drawMark(mark, isSeen) {
  const lane = page.lanes[mark.lane], left = x(mark.at);
  if (!isSeen(left, left)) return;
  if (mark.kind === "end") cross(left, lane.middle, 8, tone.bad, 3);
  else {
    pen.fillStyle = tone.warn;
    pen.beginPath();
    pen.moveTo(left, lane.top + 14);
    pen.lineTo(left - 6, lane.top + 2);
    pen.lineTo(left + 6, lane.top + 2);
    pen.fill();
    label(mark.text.split(/[ {(]/)[0], left + 8, lane.top + 11, tone.warn, 10);
  }
  drawn.push({ kind: "mark", of: mark, box: [left - 7, lane.top + 2, 14, 14], event: mark.at[0] });
}

function drawCursor(high) {
  const left = x(ofEvent(look.cursor));
  pen.globalAlpha = 0.35;
  line(left, AXIS - 10, left, high, tone.mark, Math.max(2, Math.min(look.mode === "time" ? 2 : look.scale, 8)));
  pen.globalAlpha = 1;
}

function drawGutter(high) {
  pen.fillStyle = tone.paper;
  pen.fillRect(0, 0, GUTTER, high);
  for (const lane of lanes) {
    const isNode = lane.kind === "node";
    label(lane.name.replace(/node\d+ disk/, "disk"), 10, lane.middle + (lane.role ? -1 : 4), tone.ink, 12, isNode ? "700" : "400");
    if (lane.role) label(lane.role, 10, lane.middle + 11, tone.soft, 10);
    if (isNode) {
      const state = stateOf(lane.node, look.cursor);
      if (state) label(state.life, 10, lane.middle + 17, tone.soft, 10);
    }
  }
  line(GUTTER - 0.5, AXIS - 8, GUTTER - 0.5, high, tone.line);
}

function line(x0, y0, x1, y1, colour, wide = 1, dash = []) {
  pen.strokeStyle = colour;
  pen.lineWidth = wide;
  pen.setLineDash(dash);
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
  pen.setLineDash([]);
}
function cross(left, top, size, colour, wide) {
  line(left - size, top - size, left + size, top + size, colour, wide);
  line(left - size, top + size, left + size, top - size, colour, wide);
}
function arrowhead(x0, y0, x1, y1, colour) {
  const angle = Math.atan2(y1 - y0, x1 - x0);
  pen.fillStyle = colour;
  pen.beginPath();
  pen.moveTo(x1, y1);
  for (const turn of [-0.35, 0.35]) pen.lineTo(x1 - 8 * Math.cos(angle + turn), y1 - 8 * Math.sin(angle + turn));
  pen.fill();
}
function label(text, left, top, colour, size = 11, heavy = "400") {
  pen.font = `${heavy} ${size}px system-ui, sans-serif`;
  pen.fillStyle = colour;
  pen.fillText(text, left, top);
}

// States are kept where they change: the last one at or before an event holds.
function stateOf(node, event) {
  let found = null;
  for (const state of page.states) {
    if (state.event > event) break;
    if (state.node === node) found = state;
  }
  return found;
}

const escaped = (text) => String(text).replace(/[&<>"]/g, (char) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[char]);
const link = (event) => `<a data-event="${event}">#${event}</a>`;

function tell() {
  const event = page.events[look.cursor] ?? { time: 0, cause: 0, lines: [] };
  const parts = [];
  const chosen = look.chosen;
  if (chosen?.label !== undefined) {
    const fate = chosen.got ? `arrives at ${link(chosen.got[0])}, ${ms(chosen.got[1])}`
      : chosen.lost ? `<span class="bad">is lost at ${link(chosen.lost[0])}, ${ms(chosen.lost[1])}</span>` : "is under way when the run ends";
    parts.push(`<h2>Message ${escaped(chosen.label)}</h2><p class="text">${page.lanes[chosen.from].name} to ${page.lanes[chosen.to].name}: leaves at ${link(chosen.sent[0])}, ${ms(chosen.sent[1])}; ${fate}</p>`);
  } else if (chosen?.row !== undefined) {
    const fate = chosen.done ? `${chosen.failed ? '<span class="bad">fails</span>' : "is done"} at ${link(chosen.done[0])}, ${ms(chosen.done[1])}`
      : chosen.lost ? `<span class="bad">is under way when its process ends at ${link(chosen.lost[0])}</span>` : "is under way when the run ends";
    parts.push(`<h2>Disk: ${escaped(chosen.kind)}</h2><p class="text">${escaped(chosen.text)}\nasked for at ${link(chosen.sent[0])}, ${ms(chosen.sent[1])}; ${fate}</p>`);
  } else if (chosen?.from) {
    parts.push(`<h2>${BAND[chosen.kind]}</h2><p class="text">${escaped(chosen.text)}\nfrom ${ms(chosen.from[1])} to ${chosen.to ? ms(chosen.to[1]) : "the end"}</p>`);
  } else if (chosen?.at) parts.push(`<h2>${page.lanes[chosen.lane].name}</h2><p class="text">${escaped(chosen.text)}</p>`);
  const next = ledTo.get(look.cursor) ?? [];
  parts.push(`<h2>Event ${look.cursor} at ${ms(event.time)}</h2><p>because of ${link(event.cause)}${next.length ? `; leads to ${next.slice(0, 12).map(link).join(" ")}${next.length > 12 ? " …" : ""}` : ""}</p>`);
  for (const said of event.lines) {
    if (said.kind === "disk") continue;
    const lane = said.lane === null ? "" : page.lanes[said.lane].name + " ";
    const about = look.partition !== null && said.about.includes(look.partition) ? " about" : "";
    parts.push(`<p class="text ${said.kind}${about}"><b>${lane}${said.kind}</b> ${escaped(said.text)}</p>`);
  }
  for (const lane of lanes.filter((lane) => lane.kind === "node")) parts.push(tellState(lane));
  if (page.remains.length && look.cursor >= last - 1) parts.push(`<details><summary>How things stand in the end</summary><pre>${escaped(page.remains.join("\n"))}</pre></details>`);
  parts.push(`<details><summary>The scenario</summary><pre>${escaped(JSON.stringify(page.scenario, null, 1))}</pre></details>`);
  $("panel").innerHTML = parts.join("");
}

function tellState(lane) {
  const state = stateOf(lane.node, look.cursor), before = stateOf(lane.node, look.cursor - 1);
  if (!state) return `<h2>${lane.name}: down</h2>`;
  const old = new Map((before?.partitions ?? []).map((row) => [row[0], row]));
  const cell = (value, was) => `<td class="${value !== was ? "changed" : ""}">${escaped(value)}</td>`;
  const row = ([name, kind, numbers]) => {
    const was = old.get(name) ?? [name, null, []], about = page.partitions[look.partition] === name ? ' class="about"' : "";
    return `<tr${about}><td>${escaped(name)}</td>${cell(kind, was[1])}${numbers.map((value, place) => cell(value, was[2][place])).join("")}</tr>`;
  };
  const head = "<tr><th></th><th></th><th>epoch</th><th>start</th><th>high watermark</th><th>synced</th><th>end</th></tr>";
  const table = state.partitions.length ? `<table>${head}${state.partitions.map(row).join("")}</table>` : "";
  return `<h2>${lane.name}: ${escaped(state.life)}, ${state.waiting} waiting</h2>${table}`;
}

// Moving about.
function go(event, chosen = null) {
  look.cursor = Math.max(0, Math.min(last, event));
  look.chosen = chosen;
  const left = x(ofEvent(look.cursor));
  if (left < GUTTER + 20 || left > canvas.clientWidth - 20) scroll(at(ofEvent(look.cursor)) - width() / look.scale / 2);
  show();
}
function scroll(left) {
  const most = last + 30 / look.scale - (width() - 60) / look.scale;
  look.left = Math.max(-10 / look.scale, Math.min(left, Math.max(most, -10 / look.scale)));
}
function zoom(factor, around = GUTTER + width() / 2) {
  const unit = look.left + (around - GUTTER) / look.scale;
  look.scale = Math.max((width() - 60) / Math.max(last, 1), Math.min(60, look.scale * factor));
  scroll(unit - (around - GUTTER) / look.scale);
  show();
}
function fit() {
  look.scale = Math.min(60, (width() - 60) / Math.max(last, 1));
  scroll(0);
  show();
}
let asked = false;
function show() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    draw();
    tell();
    const name = look.partition === null ? "" : `&p=${page.partitions[look.partition]}`;
    history.replaceState(null, "", `#e=${look.cursor}${name}${look.mode === "time" ? "&m=time" : ""}${chosenTheme ? "&t=" + chosenTheme : ""}`);
  });
}

// What is nearest to a click, the smallest things first.
function hit(left, top) {
  const inside = ([x0, y0, wide, high], slack) => left >= x0 - slack && left <= x0 + wide + slack && top >= y0 - slack && top <= y0 + high + slack;
  const away = ([x0, y0, x1, y1]) => {
    const [dx, dy] = [x1 - x0, y1 - y0], along = Math.max(0, Math.min(1, ((left - x0) * dx + (top - y0) * dy) / (dx * dx + dy * dy || 1)));
    return Math.hypot(left - x0 - along * dx, top - y0 - along * dy);
  };
  const near = (kind, slack) => drawn.filter((item) => item.kind === kind && inside(item.box, slack))
    .sort((a, b) => Math.abs(a.box[0] + a.box[2] / 2 - left) - Math.abs(b.box[0] + b.box[2] / 2 - left))[0];
  const message = drawn.filter((item) => item.kind === "message").map((item) => [away(item.line), item]).sort((a, b) => a[0] - b[0])[0];
  return near("dot", 3) ?? near("mark", 2) ?? near("command", 2) ?? (message && message[0] < 6 ? message[1] : null) ?? near("band", 0);
}

let drag = null;
canvas.addEventListener("mousedown", (event) => { drag = { from: event.offsetX, left: look.left, moved: false }; });
window.addEventListener("mouseup", () => { drag = null; });
canvas.addEventListener("mousemove", (event) => {
  if (!drag) return;
  if (Math.abs(event.offsetX - drag.from) > 4) drag.moved = true;
  if (drag.moved) { scroll(drag.left - (event.offsetX - drag.from) / look.scale); show(); }
});
canvas.addEventListener("mouseup", (event) => {
  if (drag?.moved) return;
  const found = hit(event.offsetX, event.offsetY);
  if (found) go(found.event, found.kind === "dot" ? null : found.of);
  else if (event.offsetX > GUTTER && look.mode === "event") go(Math.round(look.left + (event.offsetX - GUTTER) / look.scale));
});
canvas.addEventListener("wheel", (event) => {
  if (event.ctrlKey || event.metaKey) zoom(event.deltaY < 0 ? 1.25 : 0.8, event.offsetX);
  else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) { scroll(look.left + (event.deltaX || event.deltaY) / look.scale); show(); }
  else return;
  event.preventDefault();
}, { passive: false });
$("panel").addEventListener("click", (event) => {
  if (event.target.dataset.event) go(Number(event.target.dataset.event));
});
$("slider").max = last;
$("slider").addEventListener("input", () => go(Number($("slider").value)));
$("in").onclick = () => zoom(1.5);
$("out").onclick = () => zoom(1 / 1.5);
$("fit").onclick = fit;
$("mode").onchange = () => { look.mode = $("mode").value; scroll(at(ofEvent(look.cursor)) - width() / look.scale / 2); show(); };
page.partitions.forEach((name, id) => $("partition").add(new Option(name, id)));
$("partition").onchange = () => { look.partition = $("partition").value === "" ? null : Number($("partition").value); show(); };
function step(way) {
  const isWanted = (event) => look.partition === null || page.events[event].lines.some((said) => said.about.includes(look.partition));
  let event = look.cursor + way;
  while (event > 0 && event < last && !isWanted(event)) event += way;
  go(event);
}
$("find").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !$("find").value) return;
  const wanted = $("find").value.toLowerCase(), way = event.shiftKey ? last : 1;
  for (let n = 1, place = look.cursor; n <= last + 1; n++) {
    place = (place + way) % (last + 1);
    if (page.events[place].lines.some((said) => said.text.toLowerCase().includes(wanted))) return go(place);
  }
});
window.addEventListener("keydown", (event) => {
  if (["find", "partition", "mode"].includes(event.target.id)) return;
  const keys = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), Home: () => go(0), End: () => go(last), "+": () => zoom(1.5), "-": () => zoom(1 / 1.5) };
  if (!keys[event.key]) return;
  keys[event.key]();
  event.preventDefault();
});
window.addEventListener("resize", show);
wishesDark.addEventListener("change", () => { applyTheme(); show(); });
$("theme").onclick = () => { chosenTheme = theme() === "dark" ? "light" : "dark"; applyTheme(); show(); };

$("title").textContent = page.title;
$("line").textContent = page.line;
$("violation").textContent = page.violation ?? "";
$("note").textContent = page.note;
const swatches = [...Object.entries(BAND), ...Object.entries(DISK).map(([kind, name]) => [kind, "disk: " + name])];
$("legend").innerHTML = swatches.map(([kind, name]) => `<span><i style="background:var(--${kind})"></i>${name}</span>`).join("") +
  `<span><span class="sign bad">✕</span>lost, crashed, failed</span><span><span class="sign" style="color:var(--warn)">▼</span>fault</span>` +
  `<span><span class="sign" style="color:var(--good)">●</span>acknowledged</span><span><span class="sign" style="color:var(--mark)">●</span>records read</span>` +
  `<span>← → event by event, + − zoom, drag or shift-wheel to move</span>`;

const asks = new URLSearchParams(location.hash.slice(1));
if (["light", "dark"].includes(asks.get("t"))) chosenTheme = asks.get("t");
applyTheme();
look.mode = $("mode").value = asks.get("m") === "time" ? "time" : "event";
const named = page.partitions.indexOf(asks.get("p"));
if (named >= 0) look.partition = $("partition").value = named;
requestAnimationFrame(() => {
  draw();
  if (last <= 500) fit(); else look.scale = width() / 160;
  go(asks.has("e") ? Number(asks.get("e")) : page.violation ? last : 0);
});
