"use strict";

const MOST_LINES = 50_000;
const MOST_FOUND = 10;
const LONGEST_SHOWN = 400;

const number = (value, digits = 0) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const megabytes = (bytes) => `${number(bytes / 1e6, 1)} MB`;

/** An element with a class and children; strings become text, never markup. */
function element(tag, className, ...children) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...children);
  return made;
}

// ------------------------------------------------------------------------------------------------ The encoder's worker

/** What was asked of the worker and is not answered yet, by its number. */
const asked = new Map();
let worker;
let model = "";

/** Starts the worker and shows how far it has come with loading. */
async function start() {
  const [text, bar] = document.querySelector("#status").children;
  const fail = (reason) => {
    worker?.terminate();
    for (const button of document.querySelectorAll("button")) button.disabled = true;
    bar.hidden = true;
    text.className = "error";
    text.textContent = `The model cannot be used: ${reason}`;
  };
  if (location.protocol === "file:") {
    fail("browsers load it from a server only. Run python -m http.server in this directory and open the address it prints.");
    return;
  }
  let about;
  try {
    about = await (await fetch("page.json")).json();
  } catch {
    fail("page.json cannot be loaded. Copy the whole directory to the server.");
    return;
  }
  model = about.name;
  document.title = `${model}: ${document.title.toLowerCase()}`;
  document.querySelector("h1").textContent = model;
  const total = Object.values(about.bytes).reduce((sum, bytes) => sum + bytes);
  const began = performance.now();
  let loaded = 0;

  worker = new Worker(workerAddress());
  worker.onerror = (event) => fail(event.message ?? "its worker does not start.");
  worker.onmessage = ({ data }) => {
    if (data.id !== undefined) {
      asked.get(data.id)?.(data);
    } else if (data.loaded) {
      loaded += data.loaded;
      bar.value = Math.min(loaded / total, 1);
      text.textContent = loaded < total ? `Loading ${megabytes(loaded)} of ${megabytes(total)}` : "Preparing the model";
    } else if (data.ready) {
      bar.hidden = true;
      text.textContent =
        `Ready: ${megabytes(loaded)} loaded and prepared in ${number((performance.now() - began) / 1000, 1)} s.`;
      for (const button of document.querySelectorAll("button")) button.disabled = false;
    } else {
      fail(data.error);
    }
  };
}

/** The worker by an address of this page's making, because only such a worker is under this page's security policy. */
function workerAddress() {
  const directory = JSON.stringify(new URL(".", location).href);
  const script = `self.directory = ${directory}; importScripts(self.directory + "worker.js");`;
  return URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
}

/**
 * Encodes texts.
 *
 * @param {string[]} texts
 * @param {{ signal: AbortSignal, side?: "query" | "passage", progress?: (done: number) => void }} options Once the signal
 *   is given, nothing follows. The model's prompt for that side is put before each text, if it has prompts.
 * @returns {Promise<{ vectors: Float32Array[], milliseconds: number }>}
 */
function encode(texts, { signal, side, progress }) {
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const id = encode.next++;
    const stop = () => {
      asked.delete(id);
      worker.postMessage({ id, stop: true });
      reject(signal.reason);
    };
    asked.set(id, (answer) => {
      if (answer.done) {
        progress?.(answer.done);
        return;
      }
      asked.delete(id);
      signal.removeEventListener("abort", stop);
      if (answer.error) reject(new Error(answer.error));
      else resolve(answer);
    });
    signal.addEventListener("abort", stop);
    worker.postMessage({ id, texts, side });
  });
}
encode.next = 0;

// ------------------------------------------------------------------------------------------------------------ Sections

/** A mistake in what was entered. */
class InputError extends Error {}

function required(field, what) {
  if (!field.value.trim()) throw new InputError(`Enter ${what}.`);
  return field.value;
}

function lines(field) {
  const found = required(field, "at least one sentence, one per line")
    .split(/\r\n|\r|\n/)
    .filter((line) => line.trim());
  if (found.length > MOST_LINES) {
    throw new InputError(`The list has ${number(found.length)} lines, at most ${number(MOST_LINES)} fit. Shorten it.`);
  }
  return found;
}

/** Both vectors have unit length. */
function cosine(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

function ranked(query, texts, vectors) {
  return texts.map((text, i) => ({ text, score: cosine(query, vectors[i]) })).sort((a, b) => b.score - a.score);
}

function resultList(results) {
  const items = results.map(({ text, score }) => {
    const bar = element("span", "bar");
    bar.style.width = `${Math.max(0, Math.min(score, 1)) * 100}%`;
    // Adding 0 makes of -0 what it is.
    const shown = (Math.round(score * 100) / 100 + 0).toFixed(2).replace("-", "\u2212");
    const short = text.length > LONGEST_SHOWN ? `${text.slice(0, LONGEST_SHOWN)}…` : text;
    return element("li", "", element("span", "score", shown), element("span", "text", short), bar);
  });
  return element("ol", "", ...items);
}

/** Which model the results are from and what they took. */
function aboutResults(count, milliseconds) {
  const each = milliseconds / count;
  return element(
    "p",
    "about",
    `${model} · ${number(count)} ${count === 1 ? "sentence" : "sentences"}, ${number(each, each < 10 ? 1 : 0)} ms per sentence`,
  );
}

/**
 * A form whose results are those of what it shows: a change of any field removes them, and stops what makes new ones.
 *
 * @param {HTMLFormElement} form
 * @param {(fields: HTMLFormControlsCollection, signal: AbortSignal) => Promise<Node[]>} answer
 */
function section(form, answer) {
  const results = form.querySelector(".results");
  let running = new AbortController();

  const clear = () => {
    running.abort();
    results.replaceChildren();
  };
  form.addEventListener("input", clear);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    clear();
    running = new AbortController();
    const { signal } = running;
    try {
      const made = await answer(form.elements, signal);
      if (!signal.aborted) results.replaceChildren(...made);
    } catch (error) {
      if (!signal.aborted) results.replaceChildren(element("p", "error", error.message));
      if (!signal.aborted && !(error instanceof InputError)) console.error(error);
    }
  });
  // Enter in a text of several lines is a new line; with Ctrl or Cmd it sends the form. A disabled button ignores clicks.
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.querySelector("button").click();
  });
  return clear;
}

section(document.querySelector("#compare"), async ({ a, b }, signal) => {
  const texts = [required(a, "a first sentence"), required(b, "a second sentence")];
  const { vectors, milliseconds } = await encode(texts, { signal });
  const result = resultList([{ text: "cosine of the two sentences", score: cosine(...vectors) }]);
  return [result, aboutResults(texts.length, milliseconds)];
});

section(document.querySelector("#rank"), async ({ query, list }, signal) => {
  const [asked, texts] = [required(query, "a query"), lines(list)];
  const first = await encode([asked], { signal, side: "query" });
  const { vectors, milliseconds } = await encode(texts, { signal, side: "passage" });
  const about = aboutResults(1 + texts.length, first.milliseconds + milliseconds);
  return [resultList(ranked(first.vectors[0], texts, vectors)), about];
});

/** The list that was read last, with its vectors. */
let read = { value: null, texts: [], vectors: [] };
/** Done when a chosen file is in the list. */
let reading = Promise.resolve();
const search = document.querySelector("#search");

const clearSearch = section(search, async ({ query, list, stop }, signal) => {
  required(query, "a query");
  await reading;
  signal.throwIfAborted();
  const texts = lines(list);
  if (read.value !== list.value) {
    const { value } = list;
    const area = search.querySelector(".progress");
    const [bar, text] = area.children;
    const began = performance.now();
    const progress = (done) => {
      bar.value = done / texts.length;
      const rate = (1000 * done) / (performance.now() - began);
      text.textContent = `${number(done)} of ${number(texts.length)} sentences, ${number(rate)} a second`;
    };
    bar.value = 0;
    text.textContent = `${number(texts.length)} sentences`;
    area.hidden = stop.hidden = false;
    signal.addEventListener("abort", () => (area.hidden = stop.hidden = true));
    try {
      const { vectors } = await encode(texts, { signal, side: "passage", progress });
      read = { value, texts, vectors };
    } finally {
      if (!signal.aborted) area.hidden = stop.hidden = true;
    }
  }
  const { vectors, milliseconds } = await encode([query.value], { signal, side: "query" });
  const began = performance.now();
  const found = ranked(vectors[0], read.texts, read.vectors).slice(0, MOST_FOUND);
  const took = milliseconds + performance.now() - began;
  const about = `${model} · the best ${found.length} of ${number(read.texts.length)} sentences, found in ${number(took)} ms`;
  return [resultList(found), element("p", "about", about)];
});

search.elements.stop.addEventListener("click", clearSearch);
search.elements.file.addEventListener("change", ({ target }) => {
  if (target.files.length) reading = readFile(target.files[0]);
});

async function readFile(file) {
  const { list, file: chosen } = search.elements;
  let text = "";
  let problem = "";
  try {
    const bytes = await file.arrayBuffer();
    try {
      text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch {
      problem = `${file.name} is not text in UTF-8.`;
    }
  } catch {
    problem = `${file.name} cannot be read.`;
  }
  // Another file was chosen meanwhile.
  if (chosen.files[0] !== file) return;
  list.value = text;
  if (problem) search.querySelector(".results").replaceChildren(element("p", "error", problem));
}

start();
