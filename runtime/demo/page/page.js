// The page: sends one image, shows what comes back. Whatever comes from outside (a file's name, an
// error) is set as text, never as markup.
"use strict";

const at = (id) => document.getElementById(id);
let limits = { max_bytes: 10 * 1024 * 1024 };
let current = 0; // the newest image; answers to older ones are dropped
let shown = null; // address of the picture on the page

const megabytes = (count) => `${Math.round(count / 1024 / 1024)} MiB`;
const millis = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

function show(id, on) {
  at(id).hidden = !on;
}

function fail(text) {
  show("busy", false);
  show("result", false);
  at("error").textContent = text;
  show("error", true);
}

async function score(file, more) {
  const mine = ++current;
  show("error", false);
  show("result", false);
  if (file.size > limits.max_bytes) {
    fail(`${file.name}: larger than ${megabytes(limits.max_bytes)}; choose a smaller file, or a crop of it`);
    return;
  }
  show("busy", true);
  let answer, found;
  try {
    answer = await fetch("/api/score?npr=1", {
      method: "POST",
      headers: { "Content-Type": "application/octet-stream" },
      body: file,
    });
    found = await answer.json();
  } catch {
    if (mine === current) fail("No answer: is qmdd demo still running?");
    return;
  }
  if (mine !== current) return;
  if (!answer.ok) {
    fail(`${file.name}: ${found.error}`);
    return;
  }
  present(file, found, more);
}

function present(file, found, more) {
  const fake = found.verdict === "fake";
  at("verdict").textContent = fake ? "Fake" : "Real";
  at("score").textContent = found.score.toFixed(4);
  at("result").className = found.verdict;
  at("bar").style.width = `${100 * found.score}%`;
  at("mark").style.left = `${100 * found.threshold}%`;
  at("scale").setAttribute("aria-label", `score ${found.score.toFixed(4)} of 1, threshold ${found.threshold}`);
  if (shown) URL.revokeObjectURL(shown);
  shown = URL.createObjectURL(file);
  at("given").src = shown;
  at("name").textContent = file.name + (more ? ` (the first of ${more})` : "");
  show("residual", Boolean(found.npr));
  if (found.npr) at("npr").src = found.npr;
  const whole = found.seen_width === found.width && found.seen_height === found.height;
  at("threshold").textContent = `fake above ${found.threshold}`;
  at("size").textContent = `${found.width}\u00a0×\u00a0${found.height}`
    + (whole ? "" : `, of it seen ${found.seen_width}\u00a0×\u00a0${found.seen_height}`);
  at("decode").textContent = millis(found.decode_ms);
  at("model").textContent = millis(found.model_ms);
  show("busy", false);
  show("result", true);
}

function take(files) {
  if (files && files.length) score(files[0], files.length > 1 ? files.length : 0);
}

async function begin() {
  at("file").addEventListener("change", (event) => {
    take(event.target.files);
    event.target.value = ""; // the same file may be chosen again
  });
  // A file that misses the field must not replace the page.
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      at("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files);
    });
  }
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
  try {
    limits = await (await fetch("/api/bundle")).json();
  } catch {
    fail("No answer: is qmdd demo still running?");
    return;
  }
  at("about").textContent = `${limits.arch}, ${limits.bits} bits, target ${limits.target} (${limits.bundle})`;
  at("limits").textContent = `Up to ${megabytes(limits.max_bytes)} and ${Math.round(limits.max_pixels / 1e6)} `
    + `megapixels; at least ${limits.min_side}\u00a0×\u00a0${limits.min_side}. Of a larger image the middle `
    + `${limits.max_side}\u00a0×\u00a0${limits.max_side} counts.`;
}

begin();
