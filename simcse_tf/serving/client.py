"""Embeddings from an exported model, on disk or served. Imports neither Keras nor the trainer."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from simcse_tf.checks import check_choice, require
from simcse_tf.data.strings import PromptName, batches_by_length, check_prompt_name, valid_texts
from simcse_tf.errors import UserError
from simcse_tf.files import check_new
from simcse_tf.serving import compact, paraphrases
from simcse_tf.serving.compact import Dtype
from simcse_tf.serving.exported import is_litert
from simcse_tf.serving.probes import PROBES

if TYPE_CHECKING:
    # What an index needs is imported when there is one: it would be a third of this module's time.
    from simcse_tf.data.records import Layout, Record, Records
    from simcse_tf.serving.index import About, Answer, Index
    from simcse_tf.serving.segment import Bits, Kind

# Batches whose texts are sorted by length together when an index is built; bounds the memory.
_BATCHES_AT_ONCE = 16


class Backend(Protocol):
    """Where a model runs.

    One whose model has prompts has `prompt_names`, and takes one of them, or None, after the texts. One that can answer
    in fewer bits has a true `in_bits`, and takes a `compact.Dtype` after that. One that knows to which `sizes` its
    vectors may be cut says so.
    """

    name: str

    def encode_batch(self, texts: list[str], /) -> np.ndarray:
        """One call of the model: `(len(texts), dim)` float32 of unit length."""
        ...


class Client:
    """A sentence encoder: an exported model on disk, or one that is served; the same functions for all.

    Any of:

        model = Client("saved_models/quickstart")
        model = Client("http://localhost:8501/v1/models/quickstart")
        model = Client("grpc://localhost:8500/quickstart")

    Threads may share a client, except that `build_index` and `load_index` change what `search` searches.

    Args:
        model: A SavedModel's directory (its newest version is taken), one version's directory, a LiteRT model's
            directory, the address of a model behind TF Serving's REST or gRPC port, or any other backend.
        timeout: Seconds to wait for a server's answer before the request is sent again.
        retry_for: Seconds after which a request that gets no answer is given up; 5 at most until the server has
            answered once.
        dim: How many numbers of each vector to keep, the first ones, scaled to unit length again. None: all.

    Raises:
        UserError: There is no such model, this package did not export it, the server cannot be reached, or `dim` is
            more than the model's vectors have numbers.
    """

    def __init__(
        self,
        model: str | Path | Backend,
        *,
        timeout: float = 30.0,
        retry_for: float = 60.0,
        dim: int | None = None,
    ):
        self._backend = _connect(str(model), timeout, retry_for) if isinstance(model, str | Path) else model
        self._index: Index | None = None
        self._temporary: tempfile.TemporaryDirectory | None = None
        probes = self._backend.encode_batch(PROBES)
        # Of the vectors as the backend gives them, and as this client does.
        self._full_dim = self.dim = int(probes.shape[-1])
        self._check(probes, len(PROBES))
        if dim is not None:
            compact.check_dim(dim, self._full_dim, getattr(self._backend, "sizes", None))
            self.dim = dim
        self._probes = compact.shortened(probes, self.dim)

    @property
    def name(self) -> str:
        """The model's directory or address."""
        return self._backend.name

    @property
    def prompt_names(self) -> tuple[str, ...]:
        """What `encode` takes as `prompt_name`: `query` and `passage`; nothing if the model has no prompts.

        Raises:
            UserError: The server, which is asked once, does not answer.
        """
        return getattr(self._backend, "prompt_names", ())

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes below `dim` that the vectors were trained to be cut to, the largest first; servers do not say."""
        return compact.smaller(getattr(self._backend, "sizes", ()), self.dim)

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        batch_size: int = 64,
        prompt_name: PromptName | None = None,
        dtype: Dtype = "float32",
    ) -> np.ndarray:
        """Encodes texts.

        Args:
            texts: One text, or any number of them.
            batch_size: Texts per call of the model; texts of like length go together.
            prompt_name: Which of the model's prompts is put before each text: `query`, `passage`, or none.
            dtype: `float32`; `int8`, 128 times the numbers; or `binary`, their signs, 8 to a byte, as `np.packbits`
                packs them. A server sends no more than that, unless `dim` was given or it serves an older export.

        Returns:
            `(len(texts), dim)` float32 of unit length, or int8; of `binary` `(len(texts), ceil(dim / 8))` uint8. In the
            order of `texts`; for a single text without the first axis.

        Raises:
            UserError: An element is not a string; the batch size is less than 1; there is no such dtype; the model has
                no such prompt; the server does not answer.
        """
        if isinstance(texts, str):
            return self.encode([texts], batch_size=batch_size, prompt_name=prompt_name, dtype=dtype)[0]
        check_choice("dtype", dtype, compact.DTYPES)
        if prompt_name is not None:
            check_prompt_name(prompt_name, self.prompt_names)
        prompt = () if prompt_name is None else (prompt_name,)
        # What is cut is scaled, which bits cannot be.
        in_bits = dtype != "float32" and self.dim == self._full_dim and getattr(self._backend, "in_bits", False)
        asked, answered = ((prompt_name, dtype), dtype) if in_bits else (prompt, "float32")
        texts = valid_texts(texts, batch_size)
        vectors = np.zeros((len(texts), compact.width(self.dim, dtype)), compact.stored_as(dtype))
        batches = list(batches_by_length(texts, batch_size))

        def encode_rows(rows: list[int]) -> None:
            answer = self._check(self._backend.encode_batch([texts[i] for i in rows], *asked), len(rows), answered)
            vectors[rows] = answer if in_bits else compact.quantized(compact.shortened(answer, self.dim), dtype)

        if len(batches) < 2:
            for rows in batches:
                encode_rows(rows)
            return vectors
        # Two calls at once: one uses what the other leaves idle (tokenising, waiting for cores or for the network).
        pool = ThreadPoolExecutor(2)
        try:
            for _ in pool.map(encode_rows, batches):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
        return vectors

    def similarity(
        self, a: str | Sequence[str] | np.ndarray, b: str | Sequence[str] | np.ndarray
    ) -> np.ndarray | float:
        """Cosine similarities of all of `a` with all of `b`.

        Args:
            a: One text, several, or vectors that `encode` returned, of whichever dtype.
            b: Likewise.

        Returns:
            `(len(a), len(b))` float32; a single text has no axis, so that two of them give a number.
        """
        vectors = [self._floats(x) for x in (a, b)]
        scores = vectors[0] @ vectors[1].T
        return float(scores) if scores.ndim == 0 else scores

    def paraphrases(
        self,
        texts: Sequence[str] | np.ndarray,
        *,
        threshold: float = 0.8,
        top_k: int = paraphrases.TOP_K,
        batch_size: int = 64,
    ) -> list[tuple[float, int, int]]:
        """Finds pairs of texts that say the same. For files: `python -m simcse_tf.paraphrases`.

        Above 50,000 texts it is approximate, and needs faiss.

        Args:
            texts: Texts, or the vectors that `encode` returned for them, of whichever dtype.
            threshold: The least cosine.
            top_k: Most pairs for each text, the most alike.
            batch_size: Texts per call of the model.

        Returns:
            `(cosine, i, j)`, the places in `texts` of each pair, i < j, best first.

        Raises:
            UserError: As `encode`, or faiss is missing, or the threshold is no cosine above 0.
        """
        found, cosines = paraphrases.find(self._floats(texts, batch_size), threshold, top_k)
        return [(cosine, i, j) for (i, j), cosine in zip(found.tolist(), cosines.tolist(), strict=True)]

    def communities(
        self, texts: Sequence[str] | np.ndarray, *, threshold: float = 0.8, batch_size: int = 64
    ) -> list[list[int]]:
        """Finds communities of texts that say the same, each around the text that is near to most others.

        Args:
            texts: As for `paraphrases`.
            threshold: The least cosine with a community's first text.
            batch_size: Texts per call of the model.

        Returns:
            The places in `texts` of each community of two and more, the largest first; of each the centre first, then
            the nearest to it. No text is in two.

        Raises:
            UserError: As `paraphrases`.
        """
        vectors = self._floats(texts, batch_size)
        centres, cosines = paraphrases.communities(vectors, *paraphrases.find(vectors, threshold), threshold)
        groups = paraphrases.by_size(centres, cosines, centres == np.arange(len(centres)))
        return [group.tolist() for group in groups]

    def build_index(
        self,
        texts: Iterable[str] | str | Path | Records,
        *,
        to: str | Path | None = None,
        kind: Kind = "flat",
        bits: Bits = 32,
        ids: Iterable[str] | None = None,
        metadata: Iterable[Mapping[str, Any]] | None = None,
        batch_size: int = 64,
        progress: Callable[[int], None] | None = None,
    ) -> Index:
        """Encodes texts and makes them searchable. If the model has prompts, with its passage prompt.

        Args:
            texts: Texts, which are read once and never held all at a time; or the name of a file: a text a line, blank
                lines skipped, or .csv, .tsv or .jsonl with a column `text` or `sentence`, and perhaps `id`, whose other
                columns are metadata. Also .gz.
            to: A new directory for the index; by default a temporary one, which goes with this client.
            kind: `flat` (exact), `ivf` or `hnsw` (approximate, for millions).
            bits: Of a number of a vector: 32, 8 or 1; of 1, all are kept in 8 bits too, on the disk, to put answers in
                order.
            ids: One for each text, all different; by default they are numbered.
            metadata: What stands beside each text, by name, the same names for all: text, numbers, or None.
            batch_size: Texts per call of the model.
            progress: Called with the number of texts encoded so far.

        Raises:
            UserError: faiss is missing; the file cannot be read; the directory exists or cannot be written; no texts;
                two have one id; metadata that differ in their names, or in being text or number.
        """
        from simcse_tf.serving import index

        temporary = None
        if to is None:
            temporary = tempfile.TemporaryDirectory(prefix="simcse_tf_index_")
            to = Path(temporary.name) / "index"
        directory = Path(to)
        check_new(directory)
        prompts = bool(self.prompt_names)
        try:
            with index.Writer(directory) as writer:
                spool = self._spool(writer.work("build"), texts, ids, metadata, batch_size, progress)
                with spool as (layout, records, vectors):
                    writer.build(
                        layout,
                        records,
                        vectors,
                        fingerprint=self._fingerprint(prompts),
                        model=self.name,
                        kind=kind,
                        bits=bits,
                        prompts=prompts,
                    )
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        self._index, self._temporary = index.Index(directory, self._fingerprint(prompts)), temporary
        return self._index

    def load_index(self, directory: str | Path) -> Index:
        """Opens an index that `build_index` or the command `index build` wrote. Its searches see later changes.

        Raises:
            UserError: There is none, it is damaged, or another model made it.
        """
        from simcse_tf.serving import index

        prompts = index.read_about(Path(directory)).prompts
        if prompts and not self.prompt_names:
            raise UserError(
                f"{directory}: was built with a model's prompts, and {self.name} has none. Open it with the model that "
                "made it, or build it again."
            )
        self._index = index.Index(Path(directory), self._fingerprint(prompts))
        return self._index

    def add(
        self,
        texts: Iterable[str] | str | Path,
        *,
        ids: Iterable[str] | None = None,
        metadata: Iterable[Mapping[str, Any]] | None = None,
        batch_size: int = 64,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Adds texts to the index that `search` searches. One whose id is there already replaces that.

        Args:
            texts: As for `build_index`.
            ids: As for `build_index`; if the index was built with ids.
            metadata: As for `build_index`, with the names that the index has.
            batch_size: Texts per call of the model.
            progress: Called with the number of texts encoded so far.

        Returns:
            How many texts were replaced.

        Raises:
            UserError: There is no index, another process is changing it, or as `build_index`.
        """
        from simcse_tf.serving import index

        opened = self._opened()
        with index.Writer(opened.directory) as writer:
            about = opened.about
            spool = self._spool(writer.work("add"), texts, ids, metadata, batch_size, progress, about)
            with spool as (_, records, vectors):
                return writer.add(records, vectors, fingerprint=self._fingerprint(about.prompts))[1]

    def remove(self, ids: Sequence[str] = (), *, where: str | None = None) -> int:
        """Removes texts from the index that `search` searches.

        Args:
            ids: Those with these ids, all of which must be there.
            where: And those for which an SQL expression over the columns holds.

        Returns:
            How many texts were removed.

        Raises:
            UserError: There is no index, an id is not there, or `where` is no such expression: nothing is removed.
        """
        from simcse_tf.serving import index

        with index.Writer(self._opened().directory) as writer:
            return writer.remove([ids] if isinstance(ids, str) else list(ids), where)[1]

    def search(
        self,
        queries: str | Sequence[str],
        *,
        threshold: float = 0.6,
        top_k: int = 5,
        where: str | None = None,
    ) -> list[Answer] | list[list[Answer]]:
        """Finds the texts of the index that are nearest to a query.

        Queries get the model's query prompt if the index was built with prompts.

        Args:
            queries: One query, or several.
            threshold: Cosine below which a text is not an answer.
            top_k: Most answers to a query.
            where: An SQL expression over the columns that must hold: `"year >= 2000 and lang = 'en'"`.

        Returns:
            `(text, cosine)` pairs that have an `id` and `metadata` too, best first; for several queries a list of such
            lists.

        Raises:
            UserError: There is no index yet, or `where` is no such expression.
        """
        opened = self._opened()
        if top_k < 1:
            raise UserError(f"`top_k` {top_k}: must be at least 1.")
        single = isinstance(queries, str)
        query: PromptName | None = "query" if opened.prompts else None
        vectors = self.encode([queries] if isinstance(queries, str) else queries, prompt_name=query)
        found = opened.search(vectors, top_k=top_k, threshold=threshold, where=where)
        return found[0] if single else found

    def _opened(self) -> Index:
        if self._index is None:
            raise UserError("no index to search: call build_index(sentences) or load_index(directory) first.")
        return self._index

    def _fingerprint(self, prompts: bool) -> np.ndarray:
        """What tells models apart; of passages where an index has prompts."""
        return self.encode(PROBES, prompt_name="passage") if prompts else self._probes

    @contextmanager
    def _spool(
        self,
        work: Path,
        texts: Iterable[str] | str | Path | Records,
        ids: Iterable[str] | None,
        metadata: Iterable[Mapping[str, Any]] | None,
        batch_size: int,
        progress: Callable[[int], None] | None,
        about: About | None = None,
    ) -> Iterator[tuple[Layout, Iterator[Record], np.ndarray]]:
        """Encodes texts, which may be read only once: they and their vectors lie on the disk meanwhile.

        They become as those of the index are that they are for.
        """
        from simcse_tf.data.records import Record, Records, given_records, open_records

        layout, dim = (None, self.dim) if about is None else (about.layout, about.dim)
        if isinstance(texts, str | Path):
            if ids is not None or metadata is not None:
                raise UserError("`ids` and `metadata` go with texts; those of a file are its columns.")
            texts = open_records(Path(texts), like=layout)
        if isinstance(texts, Records):
            layout, records = texts.layout, texts.read()
        else:
            layout, records = given_records(texts, ids, metadata, layout)
        prompts = self.prompt_names if about is None else about.prompts
        prompt_name: PromptName | None = "passage" if prompts else None
        work.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=work) as name:
            lines, rows, count = Path(name, "records.jsonl"), Path(name, "vectors"), 0
            with lines.open("w", encoding="utf-8") as record_file, rows.open("wb") as vector_file:
                while block := list(islice(records, batch_size * _BATCHES_AT_ONCE)):
                    record_file.writelines(f"{json.dumps(record)}\n" for record in block)
                    words = [record.text for record in block]
                    vectors = self.encode(words, batch_size=batch_size, prompt_name=prompt_name)
                    vector_file.write(np.ascontiguousarray(compact.shortened(vectors, dim), "<f4").tobytes())
                    count += len(block)
                    if progress is not None:
                        progress(count)
            if count == 0:
                raise UserError("nothing to index: there are no texts.")
            with lines.open(encoding="utf-8") as written:
                again = (Record(*json.loads(line)) for line in written)
                yield layout, again, np.memmap(rows, "<f4", "r", shape=(count, dim))

    def _floats(self, texts: str | Sequence[str] | np.ndarray, batch_size: int = 64) -> np.ndarray:
        """The vectors of texts, or those that quantized ones stand for."""
        if isinstance(texts, np.ndarray):
            return compact.floats(texts, self.dim)
        return self.encode(texts, batch_size=batch_size)

    def _check(self, vectors: np.ndarray, rows: int, dtype: Dtype = "float32") -> np.ndarray:
        expected = (rows, compact.width(self._full_dim, dtype))
        if vectors.shape != expected or not np.isfinite(vectors).all():
            raise UserError(
                f"{self.name}: {rows} texts gave an array of shape {vectors.shape} where {expected} finite numbers "
                "were expected. Was the model behind this address replaced by another? Then make a new Client."
            )
        return vectors


def _connect(model: str, timeout: float, retry_for: float) -> Backend:
    scheme = model.split("://", maxsplit=1)[0] if "://" in model else None
    if scheme in ("http", "https"):
        from simcse_tf.serving.rest import RestBackend

        return RestBackend(model, timeout=timeout, retry_for=retry_for)
    if scheme == "grpc":
        require("grpc", "grpc", f"{model} needs grpcio")
        from simcse_tf.serving.rpc import RpcBackend

        return RpcBackend(model, timeout=timeout, retry_for=retry_for)
    if scheme is not None:
        raise UserError(
            f"{model}: unknown kind of address '{scheme}://'. Expected http://host:8501/v1/models/NAME, "
            "grpc://host:8500/NAME or a directory."
        )
    if is_litert(Path(model)):
        from simcse_tf.serving.litert import LiteRTBackend

        return LiteRTBackend(Path(model))
    from simcse_tf import quiet
    from simcse_tf.serving.disk import DiskBackend

    quiet.import_tensorflow(onednn=False, keras=False)
    return DiskBackend(Path(model))
