"""What a run is: its configuration, and the named recipes. Standard library only, so that flags fail fast.

Every field of `TrainConfig` is a flag of the training command: the comment above it is its help, and `# --- Data ---`
begins a group of flags.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from simcse_tf.checks import check_choice, check_range
from simcse_tf.errors import UserError, did_you_mean

Pooling = Literal["cls", "cls_before_pooler", "avg", "avg_top2", "avg_first_last"]
Head = Literal["none", "train_only", "always"]
HeadInit = Literal["random", "pooler"]
# How an exported LiteRT model stores its weights.
Quantize = Literal["none", "float16", "int8"]
Loss = Literal["infonce", "triplet", "cosent", "align_uniform", "none"]
MixedPrecision = Literal["auto", "off", "bfloat16", "float16"]
Switch = Literal["auto", "on", "off"]
DropoutMasks = Literal["independent", "same"]
Strategy = Literal["auto", "one", "mirrored", "multiworker", "tpu"]

# What is compared with what inside a batch: anchors with positives, positives with anchors, and each with themselves.
DIRECTIONS = ("a2p", "p2a", "a2a", "p2p")
# Names that may have a number behind a colon, with the usual one: what a cosine becomes before the softmax, with a
# margin; negatives beside the batch's, with a share, a scale and a size; terms beside the loss, with weights.
LOGITS: dict[str, float | None] = {"cosine": None, "arccon": math.pi / 18, "focal": 0.3}
NEGATIVES: dict[str, float | None] = {"mixed": 0.2, "off_dropout": 0.9, "queue": 160}
TERMS: dict[str, float | None] = {"dimensions": 0.1, "align_uniform": 0.1, "consistency": 1.0}
# What can be learned from a teacher: losses with their weights, and a mask with its margin.
TEACH: dict[str, float | None] = {"vectors": 1.0, "listwise": 1.0, "mask": 0.0}
# In `select_by`: no development set selects.
LAST = "last"

ACCUMULATION_IS_ANOTHER_LOSS = (
    "accumulated gradients would be those of another loss. A text's negatives are the other texts of its batch: 8 "
    "accumulated batches of 64 give it 64 candidates, not 512. For 512 in the memory of 64: `batch_size` 512 with "
    "`chunk_size` 64."
)


@dataclass(frozen=True)
class EncoderConfig:
    """What is saved beside an encoder's weights, so that nothing about it has to be guessed from a name."""

    # How token vectors become one vector. cls_before_pooler is [CLS] without the head at inference, whatever `head`
    # says.
    pooling: Pooling = "cls"
    # The MLP (dense + tanh) on top of [CLS]: never there, only while training, or also at inference.
    head: Head = "train_only"
    # Longest text at inference in tokens, [CLS] and [SEP] included, the rest is cut off; None: what the backbone has
    # positions for, at most 512. Training has a maximum of its own (32 in the paper, which evaluates on whole
    # sentences).
    max_length: int | None = None
    # What is put before a query, and before a text that a query should find. An encoder with neither has no prompts.
    query_prompt: str = ""
    passage_prompt: str = ""
    # The sizes that vectors were trained to be cut to, if any (Matryoshka).
    matryoshka: tuple[int, ...] = ()
    # How many numbers of a vector are kept, the first ones, scaled to unit length again; None: all.
    dim: int | None = None

    def __post_init__(self):
        # JSON has lists.
        object.__setattr__(self, "matryoshka", tuple(self.matryoshka))
        for field in ("pooling", "head"):
            check_choice(field, getattr(self, field), _CHOICES[field])
        if self.max_length is not None:
            check_max_length(self.max_length)
        for field in _PROMPTS:
            check_prompt(field, getattr(self, field))
        check_sizes("matryoshka", self.matryoshka)
        if self.dim is not None:
            check_range("dim", self.dim, low=1)

    @property
    def prompts(self) -> dict[str, str]:
        """Both prompts by the names under which callers ask for them; none if both are empty."""
        prompts = {"query": self.query_prompt, "passage": self.passage_prompt}
        return prompts if any(prompts.values()) else {}

    def to_dict(self) -> dict[str, Any]:
        """What is written into files: without what is not set and older versions did not know."""
        values = dataclasses.asdict(self) | {"matryoshka": list(self.matryoshka)}
        return {name: value for name, value in values.items() if value or name not in _NEWER}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EncoderConfig:
        """Reads the fields in `to_dict`'s output, whatever else is there.

        Raises:
            UserError: A value that cannot be.
            KeyError: A field is missing that every version has written.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: values[name] for name in names if name in values or name not in _NEWER})


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run. `config.json` in the run directory is this, in JSON."""

    # --- Model ---

    # Where the encoder starts: 'minilm' (offline), a keras-hub preset name, or a directory (keras-hub or Hugging Face).
    preset: str = "minilm"
    # Begin with some of the preset's transformer layers: a number of them, evenly spaced with the first and the last
    # among them (3 of 6 are 0, 2 and 5); or several by their places, counted from 0. Default: all.
    layers: tuple[int, ...] = ()
    # How token vectors become one sentence vector.
    pooling: Pooling = "cls"
    # The MLP head (dense + tanh): none, train_only (unsupervised SimCSE) or always (supervised SimCSE).
    head: Head = "train_only"
    # Where the head starts: fresh random weights, or the checkpoint's pooler (princeton-nlp keep their head there).
    head_init: HeadInit = "random"
    # Longest sentence in training, in tokens, [CLS] and [SEP] included; evaluation and the export take whole texts.
    max_length: int = 32
    # Dropout rate inside the encoder; in unsupervised training it is the only difference between the two views.
    dropout: float = 0.1
    # Whether every view of a batch is encoded under dropout masks of its own, or all under the same (the paper's
    # ablation "fixed 0.1": the two views of a sentence are then equal).
    dropout_masks: DropoutMasks = "independent"
    # Put before every anchor in training, such as 'query: ', and saved with the encoder, which can later put it before
    # queries. Default: that of the preset, if it has one.
    query_prompt: str | None = None
    # Put before every other text of a row, such as 'passage: ', and saved likewise: for the texts that queries should
    # find.
    passage_prompt: str | None = None

    # --- Data ---

    # 'bundled', a .txt/.csv/.tsv/.jsonl file (also .gz), 'tfds:NAME:SPLIT:FIELD[,FIELD...]', 'tfds:snli+multi_nli',
    # 'wiki1m' or 'nli_for_simcse'; or documents, of which two crops are a pair: a folder of .txt/.md files, or
    # 'documents:FILE' for a file with one on each line or row.
    data: str = "bundled"
    # Consecutive sentences in each of the two crops of a document. Two sentences are about 50 tokens: see --max-length.
    crop_sentences: int = 2
    # Sentences that the two crops of a document may have in common: 0, or up to one fewer than in a crop.
    crop_overlap: int = 1
    # Columns of a table or of JSON lines, where their names are not the usual ones: a text; a text and its label (texts
    # of one label are each other's positives); anchor, positive and any number of hard negatives; or two texts and a
    # score. A label is called 'label' or 'class', a score 'score', 'grade' or 'label'; label:NAME and score:NAME say it
    # of another column. Of documents a text.
    columns: tuple[str, ...] = ()
    # Skip and count rows that cannot be used instead of stopping at the first.
    skip_bad_rows: bool = False
    # Rows held for shuffling. A file no longer than this is shuffled perfectly; memory grows with it.
    shuffle_buffer: int = 100_000
    # Repeat some tokens of the second text of a row, the positive: below this share of them, at most 9, drawn anew in
    # every step (ESimCSE: 0.32 for BERT, 0.3 for RoBERTa). A sentence alone and its positive then differ in length.
    word_repetition: float | None = None
    # Where TensorFlow Datasets keeps its data (by default where it always does).
    tfds_dir: Path | None = None

    # --- Objective ---

    # infonce over the batch; triplet, the margin loss (needs a hard negative in every row); cosent, which puts the
    # similarities of graded pairs in the order of their scores (needs two texts and a score in every row);
    # align_uniform: positives near, and all texts spread; or none: everything is learned from a teacher.
    loss: Loss = "infonce"
    # Cosine similarities are divided by this, in infonce and cosent.
    temperature: float = 0.05
    # Added to the logits of each anchor's own hard negatives (the logarithm of the paper's alpha).
    hard_negative_weight: float = 0.0
    # Leave out of an anchor's negatives what is, word for word, the anchor or its positive. The paper does not, nor do
    # its recipes. The logs count them as `false_negatives`, left out or not. Texts with the anchor's label are left out
    # whatever this says.
    mask_false_negatives: bool = True
    # Margin of the triplet loss, in squared distance between unit vectors.
    margin: float = 0.2
    # What infonce compares inside a batch: a2p, anchors with positives (and hard negatives), always; and beside it p2a,
    # positives with anchors, a2a, anchors with anchors, p2p, positives with positives. The loss is their mean.
    directions: tuple[str, ...] = ("a2p",)
    # All directions in one softmax (GTE), instead of one for each.
    joint: bool = False
    # What a cosine becomes in infonce's softmax: cosine, as it is; arccon, where the own pair has to be nearer by an
    # angle (arccon:0.1745, in radians, is 10 degrees); or focal, which weighs by hardness (focal:0.3).
    logits: str = "cosine"
    # Leave the own pair out of infonce's denominator (decoupled contrastive learning).
    decoupled: bool = False
    # Negatives that infonce has beside the batch's, any of: mixed, a little of the own positive in another (mixed:0.2,
    # MixCSE); queue, texts of earlier batches (queue:160 of them, ESimCSE; twice the memory for weights); off_dropout,
    # instead of the batch's, anchors encoded once more without dropout (SimCSE++; the own pair's logit times 0.9).
    negatives: tuple[str, ...] = ()
    # Losses added to it, with their weights: dimensions:0.1 (SimCSE++: dimensions should differ), align_uniform:0.1,
    # consistency:1 (RankCSE: an anchor and its positive should find the same texts similar).
    add: tuple[str, ...] = ()
    # Train infonce's temperature with the encoder, beginning with --temperature.
    learn_temperature: bool = False
    # Take the loss of the first so many numbers of every vector too (Matryoshka), such as 384 256 128 64 32: vectors
    # can later be cut to any of these sizes. The encoder's own size must be among them. Default: that alone.
    matryoshka: tuple[int, ...] = ()
    # How much the loss at each of these sizes counts. Default: 1 each.
    matryoshka_weights: tuple[float, ...] = ()

    # --- Teacher ---

    # A model to learn from: a SavedModel, LiteRT, run or Hugging Face directory, a preset name, or a TF Serving
    # address; its vectors may have any size. They are computed once, before the first step, and kept in the run.
    teacher: str | None = None
    # What is learned from it, beside --loss, any of: vectors, its vectors (vectors:1, the weight), through a trained
    # linear layer where they have another size than the encoder's; listwise, how similar it finds the texts of the
    # batch (listwise:1, ListNet); mask, by which texts that it finds more similar to an anchor than the positive are no
    # negatives (mask:0.1 also those less than 0.1 below the positive; GISTEmbed).
    teach: tuple[str, ...] = ("vectors",)
    # The mask's margin as a share of the positive's cosine: with 0.05, texts more than 95 % as similar are left out.
    mask_relative_margin: float = 0.0
    # In listwise, the teacher's cosines are divided by this.
    teacher_temperature: float = 0.025
    # In listwise, the encoder's cosines are divided by this.
    student_temperature: float = 0.05
    # The second text of each row is a translation of the first, which alone the teacher reads: its vector stands for
    # both. So an encoder learns the teacher's vectors for another language.
    translations: bool = False

    # --- Optimisation ---

    # Rows per step, over all replicas together.
    batch_size: int = 64
    # Rows that a replica encodes at once (GradCache); divides its share of the batch. The gradients are those of the
    # whole batch, memory is that of so many rows, a step takes up to a third longer. None: all rows at once.
    chunk_size: int | None = None
    # Peak learning rate of AdamW; it falls linearly to 0 over the run.
    learning_rate: float = 3e-5
    # Decoupled weight decay.
    weight_decay: float = 0.0
    # Gradients are scaled down to this global norm.
    clip_norm: float = 1.0
    # Passes over the data.
    epochs: int = 1
    # Stop after this many steps, whatever `epochs` says; the learning rate reaches 0 there.
    max_steps: int | None = None
    # Seeds weights, dropout and data order.
    seed: int = 42

    # --- Evaluation ---

    # Steps between evaluations on the development sets; the best checkpoint by the set that selects is kept.
    eval_every: int = 125
    # What the encoder is judged on: 'bundled', 'tfds:glue/stsb', 'held-out' (a part of --data, if that is pairs,
    # triplets or documents; if they are in files the default, with 'bundled'), .csv/.tsv/.jsonl files, directories in
    # BEIR's layout.
    # Two texts and a score are graded pairs, two and a label (0 or 1) labelled pairs, three triplets, two retrieval;
    # graded:FILE, labelled:FILE, triplets:FILE or retrieval:FILE says it where the columns do not. PAIRS+DOCUMENTS: a
    # second file has more documents to find among.
    dev: tuple[str, ...] = ("bundled",)
    # The name of the development set by which the best checkpoint is selected: the name of its file without the suffix,
    # 'bundled', 'held-out', or 'STSB-dev' for STS-B. last: none selects, and the last encoder is kept. Default: the
    # first.
    select_by: str | None = None
    # How much of the weights that training began with to keep, from 0 to 1: the best step's weights are mixed with them
    # (WiSE-FT), and the mix takes its place. auto: of 0, 0.25, 0.5, 0.75 and 1 the share that the development set that
    # selects scores best, among those at which no other one falls more than 0.5 points below what it was before
    # training. Default: nothing is mixed.
    keep: float | Literal["auto"] | None = None
    # SentEval's data directory. Its STSBenchmark takes the place of 'bundled' and 'tfds:glue/stsb' in --dev, or comes
    # beside the files there.
    sts_dir: Path | None = None
    # Texts to watch, at most 500: a .txt, .csv, .tsv or .jsonl file, read as training data is; the first two texts of a
    # row belong together. Every evaluation encodes them into OUTPUT_DIR/watched, and the report shows how they move.
    watch: Path | None = None

    # --- Files ---

    # The run directory: config.json, metrics.jsonl, TensorBoard logs, checkpoints. Default: runs/RECIPE.
    output_dir: Path | None = None
    # Write the best encoder as a SavedModel at EXPORT_TO/<next version>/.
    export_to: Path | None = None
    # Write report.html into the run directory at the end: curves, before and after, pictures.
    report: bool = True
    # Replace the run that OUTPUT_DIR holds.
    overwrite: bool = False
    # Continue the run that OUTPUT_DIR holds from its last checkpoint, to the same weights as if it had never stopped;
    # start it where there is none; where it is complete, make only what is missing of export and report.
    resume: bool = False
    # Steps between checkpoints of the training state, beside the one after every evaluation. On SIGTERM there is one
    # more, at the end of the step, and exit status 75: --resume continues.
    save_every: int | None = None

    # --- Compute ---

    # The replicas that share a batch. auto: TPU if there is one, multiworker if TF_CONFIG names several workers,
    # mirrored if there are several GPUs, else one.
    strategy: Strategy = "auto"
    # 16-bit arithmetic with 32-bit weights; auto: bfloat16 on TPUs and on GPUs that have it, else off.
    mixed_precision: MixedPrecision = "auto"
    # Compile the training step with XLA; auto: on one GPU.
    jit_compile: Switch = "auto"

    def encoder(self, preset: EncoderConfig | None = None) -> EncoderConfig:
        """The part of the configuration that travels with the weights.

        Args:
            preset: What the preset says of itself; its prompts stay where no others are given.
        """
        given = {name: value for name in _PROMPTS if (value := getattr(self, name)) is not None}
        kept = {name: getattr(preset, name) for name in _PROMPTS} if preset else {}
        return EncoderConfig(pooling=self.pooling, head=self.head, matryoshka=self.matryoshka, **kept | given)

    def validate(self) -> None:
        """Checks every field by itself and the fields against each other.

        Raises:
            UserError: A value is out of range or contradicts another; names the field, its value and what it may be.
        """
        for field, valid in _CHOICES.items():
            check_choice(field, getattr(self, field), valid)
        for field in ("batch_size", "eval_every", "epochs", "shuffle_buffer"):
            check_range(field, getattr(self, field), low=1)
        check_crops(self.crop_sentences, self.crop_overlap)
        check_max_length(self.max_length)
        for field in _PROMPTS:
            if getattr(self, field) is not None:
                check_prompt(field, getattr(self, field))
        for field in ("max_steps", "save_every"):
            if getattr(self, field) is not None:
                check_range(field, getattr(self, field), low=1)
        if self.chunk_size is not None:
            check_range("chunk_size", self.chunk_size, low=1)
            self.check_chunks(replicas=1)
        check_range("dropout", self.dropout, low=0, high=0.99)
        for field in ("temperature", "learning_rate", "clip_norm", "teacher_temperature", "student_temperature"):
            check_range(field, getattr(self, field), above=0)
        for field in ("weight_decay", "margin", "mask_relative_margin"):
            check_range(field, getattr(self, field), low=0)
        check_range("hard_negative_weight", self.hard_negative_weight)
        check_sizes("matryoshka", self.matryoshka, "matryoshka_weights", self.matryoshka_weights)
        for field in _OF_INFONCE:
            value = getattr(self, field)
            if value != getattr(TrainConfig, field) and self.loss != "infonce":
                shown = "" if value is True else f" {_shown(value)}"
                raise UserError(f"`{field}`{shown}: a part of `loss` infonce, not of {self.loss}. Omit it.")
        self._check_objective()
        self._check_teacher()
        if self.layers == (1,) and self.pooling in ("avg_top2", "avg_first_last"):
            raise UserError(f"`layers` 1: `pooling` {self.pooling} reads two layers. Use `layers` 2, or `pooling` avg.")
        if isinstance(self.keep, str):
            check_choice("keep", self.keep, ("auto",))
        elif self.keep is not None:
            check_range("keep", self.keep, low=0, high=1, why="the share of the starting weights")
        if self.loss == "infonce" and self.batch_size < 2:
            raise UserError("`batch_size` 1: InfoNCE needs at least 2 rows, because the other rows are the negatives.")
        if (self.loss in ("cosent", "align_uniform") or self.add) and self.batch_size < 2:
            name = "CoSENT" if self.loss == "cosent" else self.loss if self.loss == "align_uniform" else "`add`"
            raise UserError(f"`batch_size` 1: {name} needs at least 2 rows, because it compares rows with each other.")
        if self.pooling == "cls_before_pooler" and self.head == "always":
            raise UserError(
                "`pooling` cls_before_pooler never applies the head, which contradicts `head` always. Use `pooling` "
                "cls, or `head` train_only."
            )
        if self.overwrite and self.resume:
            raise UserError("`overwrite` and `resume` contradict each other: give one of them.")

    def numbers(self, field: str) -> dict[str, float]:
        """The names in `logits`, `negatives`, `add` or `teach`, each with its number or the usual one.

        Raises:
            UserError: An unknown name, one that is given twice, or a number that it cannot have.
        """
        given = getattr(self, field)
        found = {}
        for text in (given,) if isinstance(given, str) else given:
            name, number = _with_number(field, text, _NUMBERED[field])
            if name in found:
                raise UserError(f"`{field}` {_shown(given)}: {name} is given twice.")
            found[name] = number
        return found

    def _check_objective(self) -> None:
        """Checks that the parts of the objective do not contradict each other."""
        check_directions(self.directions, self.joint)
        negatives, terms = self.numbers("negatives"), self.numbers("add")
        self.numbers("logits")
        if "off_dropout" in negatives:
            for field, contradicts, reason in (
                ("dropout", self.dropout == 0, "there is no dropout to be without"),
                (
                    "dropout_masks",
                    self.dropout_masks == "same",
                    "its two views are equal, with nothing to learn",
                ),
                ("directions", len(self.directions) > 1, "anchors without dropout are compared with each other alone"),
            ):
                if contradicts:
                    shown = _shown(getattr(self, field))
                    raise UserError(f"`negatives` off_dropout and `{field}` {shown}: {reason}. Omit one of them.")
        if "align_uniform" in terms and self.loss == "align_uniform":
            raise UserError("`add` align_uniform: it is the `loss` already. Omit it, or use another `loss`.")
        if self.loss == "cosent" and (self.add or self.word_repetition is not None):
            field = "add" if self.add else "word_repetition"
            raise UserError(
                f"`{field}` {_shown(getattr(self, field))}: needs positives, and the pairs of `loss` cosent have "
                "scores. Omit it."
            )
        if self.word_repetition is not None:
            check_range("word_repetition", self.word_repetition, above=0, high=1, why="a share of a text's tokens")

    def _check_teacher(self) -> None:
        """Checks what is to be learned from a teacher."""
        teach = self.numbers("teach")
        if self.teacher is None:
            if self.loss == "none":
                raise UserError("`loss` none: there is nothing to learn from. Name a `teacher`, or another `loss`.")
            for field in _OF_TEACHERS:
                value = getattr(self, field)
                if value != getattr(TrainConfig, field):
                    shown = "" if value is True else f" {_shown(value)}"
                    raise UserError(f"`{field}`{shown}: there is no teacher. Name one with `teacher`, or omit it.")
            return
        if self.loss == "cosent":
            raise UserError(
                f"`teacher` {self.teacher}: `loss` cosent learns from scores that people gave, and a teacher's would "
                "contradict them. Omit one of the two."
            )
        if "mask" in teach and self.loss != "infonce":
            raise UserError(
                f"`teach` mask: leaves negatives out of `loss` infonce, not of {self.loss}. Omit mask, or use infonce."
            )
        if not teach:
            raise UserError(f"`teacher` {self.teacher}: nothing is learned from it. Name with `teach` what should be.")
        for field, name in (
            ("mask_relative_margin", "mask"),
            ("teacher_temperature", "listwise"),
            ("student_temperature", "listwise"),
        ):
            value = getattr(self, field)
            if value != getattr(TrainConfig, field) and name not in teach:
                raise UserError(f"`{field}` {value:g}: a part of `teach` {name}. Add {name}, or omit it.")
        if self.batch_size < 2 and "listwise" in teach:
            raise UserError("`batch_size` 1: the teacher's similarities need at least 2 rows, which it compares.")
        if "vectors" in teach and self.matryoshka:
            raise UserError(
                "`teach` vectors and `matryoshka`: a teacher's vectors are not cut to these sizes. Use `teach` "
                "listwise, or omit one of them."
            )
        if "vectors" in teach and self.head == "train_only":
            raise UserError(
                "`teach` vectors: with `head` train_only the head would learn them, and it is dropped after training. "
                "Use `head` none, or teach listwise alone."
            )

    @property
    def taught(self) -> dict[str, float]:
        """What is learned from a teacher, by its name in `TEACH`; nothing where there is none."""
        return {} if self.teacher is None else self.numbers("teach")

    def check_chunks(self, replicas: int) -> None:
        """Checks that the chunks divide each replica's share of the batch.

        Raises:
            UserError: They do not.
        """
        rows = self.batch_size // replicas
        if self.chunk_size is not None and rows % self.chunk_size:
            shared = f" / {replicas} replicas = {rows} rows each" if replicas > 1 else ""
            raise UserError(
                f"`chunk_size` {self.chunk_size} does not divide `batch_size` {self.batch_size}{shared}; "
                f"{math.gcd(rows, self.chunk_size)} would."
            )

    def to_json(self) -> str:
        """JSON text that `from_json` reads back into an equal configuration."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=str) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str = "config.json") -> TrainConfig:
        """Reads `to_json`'s output.

        Args:
            text: The JSON text.
            where: The file it came from, for the error message.

        Raises:
            UserError: The text is not a JSON object, or has a field that this version does not know.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as e:
            raise UserError(f"{where}:{e.lineno}: not JSON ({e.msg}). Is the run directory complete?") from e
        if not isinstance(values, dict):
            raise UserError(f"{where}: expected a JSON object. Is it a run's configuration?")
        return cls.from_dict(values, where=where)

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, where: str) -> TrainConfig:
        """As `from_json`, from what its text says.

        Raises:
            UserError: A field that this version does not know.
        """
        known = {f.name: f for f in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise UserError(f"{where}: unknown field '{name}'. {did_you_mean(name, known)}")
        typed = dict(values)
        for name in ("sts_dir", "tfds_dir", "watch", "output_dir", "export_to"):
            if typed.get(name) is not None:
                typed[name] = Path(typed[name])
        for name in _LISTS:
            if name in typed:
                # Version 0.1.0 knew one development set.
                typed[name] = (typed[name],) if isinstance(typed[name], str) else tuple(typed[name])
        return cls(**typed)


def check_max_length(max_length: int) -> None:
    """Checks that a longest text, in tokens, leaves room for one beside [CLS] and [SEP].

    Raises:
        UserError: It does not.
    """
    check_range("max_length", max_length, low=3, why="[CLS], [SEP] and at least one token")


def check_crops(sentences: int, overlap: int) -> None:
    """Checks that two crops of so many sentences can have so many in common.

    Raises:
        UserError: They cannot.
    """
    check_range("crop_sentences", sentences, low=1)
    check_range("crop_overlap", overlap, low=0, high=sentences - 1, why=f"fewer than `crop_sentences` {sentences}")


def check_directions(directions: tuple[str, ...], joint: bool) -> None:
    """Checks what InfoNCE is to compare.

    Raises:
        UserError: An unknown direction, one that is given twice, none from anchors to positives, or one to be joined.
    """
    for name in directions:
        check_choice("directions", name, DIRECTIONS)
    given = f"`directions` {_shown(directions)}"
    if len(set(directions)) < len(directions):
        raise UserError(f"{given}: one is given twice.")
    if "a2p" not in directions:
        raise UserError(f"{given}: without a2p, anchors with positives, there is no infonce. Add it.")
    if joint and len(directions) == 1:
        raise UserError(f"`joint`: {given} is one direction, with nothing to join. Add others, or omit it.")


def check_number(field: str, name: str, value: float) -> None:
    """Checks the number that goes with a name in `LOGITS`, `NEGATIVES`, `TERMS` or `TEACH`.

    Raises:
        UserError: It is out of range.
    """
    bounds = {
        "arccon": {"above": 0, "high": math.pi / 2},
        "focal": {"above": 0, "high": 1},
        "mixed": {"above": 0, "high": 0.99},
        "off_dropout": {"above": 0, "high": 1},
        "queue": {"low": 1},
        "mask": {"low": 0, "high": 2},
    }
    check_range(field, value, **bounds.get(name, {"above": 0}), why=f"the number of {name}")
    if name == "queue" and value != int(value):
        raise UserError(f"`{field}` {value}: must be a whole number (the number of {name}).")


def _with_number(field: str, text: str, known: dict[str, float | None]) -> tuple[str, float]:
    """Reads `NAME` or `NAME:NUMBER`."""
    name, colon, number = text.partition(":")
    check_choice(field, name, tuple(known))
    usual = known[name]
    if not colon:
        return name, usual or 0.0
    if usual is None:
        raise UserError(f"`{field}` {text}: {name} takes no number. Use {name} alone.")
    try:
        value = float(number)
    except ValueError:
        raise UserError(f"`{field}` {text}: expected a number behind the colon, such as {name}:{usual:.4g}.") from None
    check_number(field, name, value)
    return name, value


def _shown(value: Any) -> str:
    """A setting as it is written on a command line."""
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def check_sizes(field: str, sizes: tuple[int, ...], weights_field: str = "", weights: tuple[float, ...] = ()) -> None:
    """Checks sizes of vectors, and how much the loss at each of them counts, if that is given.

    Raises:
        UserError: A size is less than 1 or there twice; there are other weights than sizes, or one is not above 0.
    """
    for size in sizes:
        if not isinstance(size, int):
            raise UserError(f"`{field}` {size!r}: expected whole numbers, such as 384 128.")
        check_range(field, size, low=1)
        if sizes.count(size) > 1:
            raise UserError(f"`{field}` {_shown(sizes)}: {size} is there twice.")
    for weight in weights:
        check_range(weights_field, weight, above=0)
    if weights and len(weights) != len(sizes):
        raise UserError(
            f"`{weights_field}` {_shown(weights)}: {len(weights)} for the {len(sizes)} sizes in `{field}`. Give one "
            "for each, or omit it."
        )


def choose_layers(layers: tuple[int, ...], of: int, preset: str) -> tuple[int, ...]:
    """Which of a preset's transformer layers an encoder begins with.

    Args:
        layers: As `TrainConfig.layers`: how many, or several places.
        of: How many the preset has.
        preset: Its name, for messages.

    Returns:
        Places, counted from 0, in order.

    Raises:
        UserError: The preset has no such layers.
    """
    if len(layers) == 1:
        check_range("layers", layers[0], low=1, high=of, why=f"{preset} has {of}")
        return tuple(round(i * (of - 1) / max(layers[0] - 1, 1)) for i in range(layers[0]))
    if list(layers) != sorted(set(layers) & set(range(of))):
        raise UserError(
            f"`layers` {' '.join(map(str, layers))}: expected places from 0 to {of - 1} in rising order ({preset} has "
            f"{of} layers), or one number: how many."
        )
    return layers


def check_prompt(field: str, prompt: str) -> None:
    """Checks that a prompt is text.

    Raises:
        UserError: It is not a string, or has characters that Unicode text cannot have.
    """
    if not isinstance(prompt, str):
        raise UserError(f"`{field}` {prompt!r}: must be a string, such as 'query: '.")
    try:
        prompt.encode()
    except UnicodeEncodeError as e:
        raise UserError(f"`{field}` {prompt!r}: is not valid UTF-8 ({e.reason} at character {e.start}).") from e


_PROMPTS = ("query_prompt", "passage_prompt")
_OF_INFONCE = ("hard_negative_weight", "directions", "joint", "logits", "decoupled", "negatives", "learn_temperature")
_NUMBERED = {"logits": LOGITS, "negatives": NEGATIVES, "add": TERMS, "teach": TEACH}
# Fields of `EncoderConfig` that version 0.1.0 did not write.
_NEWER = (*_PROMPTS, "matryoshka", "dim")
# JSON has lists for tuples.
_LISTS = (
    *("columns", "dev", "layers", "directions", "negatives", "add"),
    *("matryoshka", "matryoshka_weights", "teach"),
)
# What has no meaning without a teacher.
_OF_TEACHERS = (
    "teach",
    "mask_relative_margin",
    "teacher_temperature",
    "student_temperature",
    "translations",
)
_CHOICES = {
    "pooling": get_args(Pooling),
    "head": get_args(Head),
    "head_init": get_args(HeadInit),
    "dropout_masks": get_args(DropoutMasks),
    "loss": get_args(Loss),
    "mixed_precision": get_args(MixedPrecision),
    "strategy": get_args(Strategy),
    "jit_compile": get_args(Switch),
}


# The paper's loss counts every other text of the batch as a negative, duplicates included.
_PAPER = TrainConfig(pooling="cls", dev=("tfds:glue/stsb",), mask_false_negatives=False)
_UNSUP = replace(_PAPER, data="wiki1m", head="train_only")
_SUP = replace(_PAPER, data="nli_for_simcse", head="always", batch_size=512, epochs=3)

# Gao et al. 2021, appendix A; presets are keras-hub's names for the same published weights.
RECIPES: dict[str, TrainConfig] = {
    # python -m simcse_tf.train; minutes on 2 CPU cores, offline. See the README for the measured scores.
    # MiniLM was trained contrastively already: averaged, its sentences are so far apart that the paper's temperature of
    # 0.05 leaves a loss of 1e-5 and nothing to learn from. At 0.3 there is, and fewer steps can be larger.
    "quickstart": TrainConfig(
        pooling="avg", temperature=0.3, learning_rate=5e-5, eval_every=13, export_to=Path("saved_models/quickstart")
    ),
    # The paper's STS average: 76.25 (one seed; elsewhere 75.11 over 50 seeds, range 73.16-76.70).
    "unsup-bert-base": replace(_UNSUP, preset="bert_base_en_uncased", batch_size=64, learning_rate=3e-5),
    "unsup-bert-large": replace(_UNSUP, preset="bert_large_en_uncased", batch_size=64, learning_rate=1e-5),
    "unsup-roberta-base": replace(_UNSUP, preset="roberta_base_en", batch_size=512, learning_rate=1e-5),
    "unsup-roberta-large": replace(_UNSUP, preset="roberta_large_en", batch_size=512, learning_rate=3e-5),
    # The paper's STS average: 81.57.
    "sup-bert-base": replace(_SUP, preset="bert_base_en_uncased", learning_rate=5e-5),
    "sup-bert-large": replace(_SUP, preset="bert_large_en_uncased", learning_rate=1e-5),
    "sup-roberta-base": replace(_SUP, preset="roberta_base_en", learning_rate=5e-5),
    "sup-roberta-large": replace(_SUP, preset="roberta_large_en", learning_rate=1e-5),
}


def recipe(name: str) -> TrainConfig:
    """Looks up a recipe by name.

    Raises:
        UserError: No such recipe; the message names the nearest ones.
    """
    if name not in RECIPES:
        raise UserError(f"unknown recipe '{name}'. {did_you_mean(name, RECIPES)}")
    return RECIPES[name]
