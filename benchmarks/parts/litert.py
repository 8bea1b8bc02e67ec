"""LiteRT: the model for processes without TensorFlow, in float32 and in 8 bits, beside peers in both."""

from __future__ import annotations

from benchmarks.measurements import OURS, Measurement
from benchmarks.parts import encoding, exports, starting
from benchmarks.parts.setting import BATCH_SIZE, Contender, Setting, running, say
from benchmarks.workers import Worker
from simcse_tf.evaluation import sts

# Ours in 8 bits is OURS; where peers' names say nothing, they compute in float32 with two threads.
_OURS_FLOAT32 = f"{OURS}, float32"
_ORT, _ORT_INT8, _OPENVINO_INT8 = "ONNX Runtime", "ONNX Runtime, int8", "OpenVINO, int8"
_INT8 = (OURS, _ORT_INT8, _OPENVINO_INT8)
# The start of ONNX Runtime's second thread may cost a single sentence more than it gives.
_ONE_THREAD = ", 1 thread"

_PAIRS = ("STSB-dev", "STSB-test", "STS12")
_EMBEDDER = "import sys; sys.path.insert(0, {!r}); from embedder import Embedder; Embedder().encode('A text.')"


def litert(setting: Setting) -> list[Measurement]:
    """All of it."""
    memory = Measurement("litert_memory", "LiteRT, int8: memory, encoding", "MiB", False)
    with running(setting, _contenders(setting)) as workers:
        many = {who: worker for who, worker in workers.items() if not who.endswith(_ONE_THREAD)}
        encoding.check(setting, many, reference=_OURS_FLOAT32, int8=_INT8)
        speed = _throughput(setting, many)
        for who, worker in many.items():
            memory.add(who, worker.turn("memory")["memory"] / 2**20)
        calls = _latency(setting, workers)
        lost = _lost(setting, workers)
    return [*calls, speed, *_start(setting), memory, *lost]


def _contenders(setting: Setting) -> dict[str, Contender]:
    def onnx_runtime(onnx: str, threads: int) -> Contender:
        return "onnx_runtime.encode", {"onnx": onnx, "threads": threads}

    onnx, onnx_int8 = exports.onnx(setting), exports.onnx_int8(setting)
    return {
        OURS: ("ours.encode_litert", {"litert": exports.litert(setting, "int8")}),
        _OURS_FLOAT32: ("ours.encode_litert", {"litert": exports.litert(setting, "none")}),
        _ORT: onnx_runtime(onnx, setting.threads),
        _ORT + _ONE_THREAD: onnx_runtime(onnx, 1),
        _ORT_INT8: onnx_runtime(onnx_int8, setting.threads),
        _ORT_INT8 + _ONE_THREAD: onnx_runtime(onnx_int8, 1),
        _OPENVINO_INT8: ("openvino.encode", {"openvino": exports.openvino_int8(setting)}),
        "sentence-transformers": "sbert.encode",
    }


def _throughput(setting: Setting, workers: dict[str, Worker]) -> Measurement:
    title = f"LiteRT, int8: encode STS-B's sentences: batch {BATCH_SIZE}"
    speed = Measurement("litert_encode_sts", title, "sentences/s", True)
    for answers in encoding.throughput(setting, workers, setting.texts.sts, 256 if setting.quick else 1500):
        for who, answer in answers.items():
            speed.add(who, answer["texts"] / answer["seconds"])
    say(f"{title}: " + ", ".join(f"{who} {figure:.0f} {speed.unit}" for who, figure in speed.medians().items()))
    return speed


def _latency(setting: Setting, workers: dict[str, Worker]) -> list[Measurement]:
    """Each precision among itself. `simcse_tf` here is `embedder.py` alone; the client checks texts and vectors too."""
    measured = []
    for precision, ours, peers in (
        ("int8", OURS, (_ORT_INT8, _ORT_INT8 + _ONE_THREAD, _OPENVINO_INT8)),
        ("float32", _OURS_FLOAT32, (_ORT, _ORT + _ONE_THREAD)),
    ):
        name, title = f"litert_latency_{precision}", f"LiteRT, {precision}: a call with 1"
        p50 = Measurement(name, f"{title}, p50", "ms", False)
        p99 = Measurement(f"{name}_p99", f"{title}, p99", "ms", False)
        tasks = {OURS: (workers[ours], "latency_model"), f"{OURS}, client": (workers[ours], "latency")}
        encoding.latency(setting, p50, p99, tasks | {who: (workers[who], "latency") for who in peers}, batch_size=1)
        measured += [p50, p99]
    return measured


def _start(setting: Setting) -> list[Measurement]:
    directory = exports.litert(setting, "int8")
    graphs = {_ORT: exports.onnx(setting), _ORT_INT8: exports.onnx_int8(setting)}
    peers = {who: ["-c", starting.ORT.format(setting.settings(onnx=onnx))] for who, onnx in graphs.items()}
    measured = []
    for name, how, code in (
        ("litert_start", "`embedder.py` alone", _EMBEDDER),
        ("litert_start_load", "`simcse_tf.load`", starting.LOAD),
    ):
        title = f"LiteRT, int8: from a cold process to the first embedding, {how}"
        measured.append(Measurement(name, title, "s", False))
        starting.in_turns(setting, measured[-1], {OURS: ["-c", code.format(directory)], **peers})
    return measured


def _lost(setting: Setting, workers: dict[str, Worker]) -> list[Measurement]:
    """How much worse 8 bits rank pairs than the same library's float32."""
    measured = []
    # Generated texts have random grades.
    few = setting.quick or not setting.texts.real
    for pairs in ["bundled"] if few else sts.available(setting.texts.sts_dir, _PAIRS)[0]:
        title = f"LiteRT, int8: Spearman on {pairs}, lost of float32's"
        lost = Measurement(f"lost_{pairs}", title, "hundredths", False)
        for int8, float32 in ((OURS, _OURS_FLOAT32), (_ORT_INT8, _ORT)):
            arguments = {"pairs": pairs, "sts_dir": str(setting.texts.sts_dir)}
            scores = {who: workers[who].turn("spearman", **arguments)["spearman"] for who in (int8, float32)}
            lost.add(int8, scores[float32] - scores[int8])
            say(f"Spearman x 100 on {pairs}: " + ", ".join(f"{who} {score:.2f}" for who, score in scores.items()))
        measured.append(lost)
    return measured
