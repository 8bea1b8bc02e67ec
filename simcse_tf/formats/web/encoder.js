// The sentence encoder: LiteRT's runtime in WebAssembly behind a tokenizer in JavaScript. Runs in a worker of the page,
// and in Node when an export is checked.

import { Tensor, loadAndCompile, loadLiteRt } from "./runtime/litert.js";
import { Tokenizer } from "./runtime/tokenizers.js";

const RUNTIME = "runtime/litert_wasm_compat_internal";
const LONE_SURROGATES = /\p{Surrogate}/gu;

export class Encoder {
  #tokenizer;
  #model;
  #maxLength;
  #bytesRead;
  #prompts;

  /**
   * @param {(name: string) => Promise<Uint8Array>} read Gives the content of a file of this directory.
   * @returns {Promise<Encoder>}
   */
  static async load(read) {
    const [about, wasmBinary, tokenizer, model] = await Promise.all(
      ["encoder.json", `${RUNTIME}.wasm`, "tokenizer.json", "model.tflite"].map(read),
    );
    const { max_length, bytes_read, query_prompt, passage_prompt, sha256 } = JSON.parse(decode(about));
    await check(sha256, { "tokenizer.json": tokenizer, "model.tflite": model });

    // Read by the runtime when it starts. It reports its progress as errors.
    self.Module = { wasmBinary, printErr: (line) => /^(INFO|WARNING): /.test(line) || console.error(line) };
    const { liteRtWasm } = await loadLiteRt(new URL(`${RUNTIME}.js`, import.meta.url).href);
    // It compares the length of a text with the model's, which is open (-1), and would refuse every one. Without the
    // comparison the model is resized to each length, as it should be.
    liteRtWasm.checkTensorBufferCompatible = () => {};

    const encoder = new Encoder();
    encoder.#maxLength = max_length;
    encoder.#bytesRead = bytes_read ?? Infinity;
    encoder.#prompts = { query: query_prompt, passage: passage_prompt };
    encoder.#tokenizer = new Tokenizer(JSON.parse(decode(tokenizer)), {});
    encoder.#model = await loadAndCompile(model, { accelerator: "wasm" });
    return encoder;
  }

  /**
   * The tokens of a text as the model sees them, special tokens included, cut off at its longest.
   *
   * @param {string} text
   * @param {"query" | "passage"} [side] Which of the model's prompts is put before the text, if it has any.
   * @returns {number[]}
   */
  tokenIds(text, side) {
    const prompted = (this.#prompts[side] ?? "") + text;
    // As in embedder.py: UTF-8 has no bytes for a lone surrogate, and a character may be cut into.
    const bytes = new TextEncoder().encode(prompted.replace(LONE_SURROGATES, "?"));
    const { ids } = this.#tokenizer.encode(decode(bytes.subarray(0, this.#bytesRead)));
    // The tokenizer does not cut off. Every family ends a text with one special token.
    return ids.length > this.#maxLength ? [...ids.slice(0, this.#maxLength - 1), ids.at(-1)] : ids;
  }

  /**
   * @param {number[]} ids The tokens of one text.
   * @returns {Promise<Float32Array>} Its vector, of unit length.
   */
  async encodeIds(ids) {
    const shape = [1, ids.length];
    const inputs = {
      ids: new Tensor(Int32Array.from(ids), shape),
      mask: new Tensor(new Int32Array(ids.length).fill(1), shape),
    };
    const outputs = await this.#model.run(inputs);
    const vector = outputs.embedding.toTypedArray();
    for (const tensor of [inputs.ids, inputs.mask, outputs.embedding]) tensor.delete();
    return vector;
  }
}

const decode = (bytes) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);

async function check(sha256, files) {
  // Browsers have it on HTTPS and on localhost alone.
  if (!globalThis.crypto?.subtle) return;
  for (const [name, content] of Object.entries(files)) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
    const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (hex !== sha256[name]) {
      throw new Error(`${name} is not the file that was exported with this page: it was damaged, or is another model's.`);
    }
  }
}
