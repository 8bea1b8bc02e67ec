"use strict";

// Holds the encoder, so that the page stays responsive. The page sends { id, texts, side } or { id, stop: true }; answers are
// { id, done } now and then, at last { id, vectors, milliseconds } or { id, error }; about loading, all without an id,
// { loaded } in bytes, { ready: true } or { error }.

// A classic script, because the runtime loads its own with importScripts.
const address = (name) => new URL(name, self.directory);
// Milliseconds of work between two looks at what else the page has sent.
const YIELD_EVERY = 50;

const stopped = new Set();

async function load() {
  const { Encoder } = await import(address("encoder.js"));
  const encoder = await Encoder.load(read);
  // The first run takes many times as long as the next.
  await encoder.encodeIds(encoder.tokenIds("A first sentence."));
  return encoder;
}

async function read(name) {
  let response;
  try {
    response = await fetch(address(name));
  } catch {
    throw new Error(`${name} cannot be loaded: the server does not answer.`);
  }
  if (!response.ok) throw new Error(`${name} cannot be loaded: the server answered ${response.status}.`);
  const chunks = [];
  const reader = response.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    chunks.push(part.value);
    postMessage({ loaded: part.value.length });
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

async function encode(encoder, id, texts, side) {
  const vectors = [];
  let milliseconds = 0;
  let rest = performance.now() + YIELD_EVERY;
  for (const [done, text] of texts.entries()) {
    const start = performance.now();
    vectors.push(await encoder.encodeIds(encoder.tokenIds(text, side)));
    const end = performance.now();
    milliseconds += end - start;
    if (end > rest) {
      postMessage({ id, done: done + 1 });
      await new Promise((resolve) => setTimeout(resolve));
      if (stopped.delete(id)) return;
      rest = performance.now() + YIELD_EVERY;
    }
  }
  postMessage({ id, vectors, milliseconds }, vectors.map((vector) => vector.buffer));
}

const loading = load();
loading.then(
  () => postMessage({ ready: true }),
  (error) => postMessage({ error: error.message }),
);

onmessage = async ({ data: { id, texts, side, stop } }) => {
  if (stop) {
    stopped.add(id);
    return;
  }
  try {
    await encode(await loading, id, texts, side);
  } catch (error) {
    postMessage({ id, error: error.message });
  } finally {
    stopped.delete(id);
  }
};
