"""Writes served_ops.tsv, what each tensorflow/serving image can run: `python -m tools.make_served_ops`.

An image registers the operations of its TensorFlow and of the tensorflow-text that it is linked with; the wheels of the
same versions register the same. This downloads them (2 GB, Linux x86), loads their libraries in a process of its own,
without Python's TensorFlow, and asks their C interface. What has no kernel for the CPU is left out.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from simcse_tf.formats.served_ops import TABLE, TARGETS

_PLATFORM = "manylinux_2_17_x86_64"
_PYTHON = "3.11"


def main() -> None:
    """Downloads, asks and writes."""
    table: dict[tuple[str, str], list[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        for target, versions in TARGETS.items():
            # A library of operations loads only beside the TensorFlow that it was built for.
            core = _registered(Path(name), versions.tensorflow)
            beside = _registered(Path(name), versions.text_built_for)
            with_text = _registered(Path(name), versions.text_built_for, versions.text)
            text = {op: attributes for op, attributes in with_text.items() if op not in beside}
            for op, attributes in (core | text).items():
                table.setdefault((op, ",".join(attributes)), []).append(target)
    lines = [f"{op}\t{attributes}\t{','.join(targets)}" for (op, attributes), targets in sorted(table.items())]
    TABLE.write_text("\n".join(lines) + "\n", "utf-8")
    print(f"{TABLE}: {len(lines)} lines")


def _registered(work: Path, tensorflow: str, text: str | None = None) -> dict[str, list[str]]:
    """Operations with a CPU kernel, and their attributes."""
    from tensorflow.core.framework import kernel_def_pb2, op_def_pb2

    libraries = [
        *_unpack(work, f"tensorflow=={tensorflow}", "libtensorflow_framework.so.2"),
        *_unpack(work, f"tensorflow=={tensorflow}", "libtensorflow_cc.so.2"),
        *([] if text is None else _unpack(work, f"tensorflow-text=={text}", ".so")),
    ]
    answer = work / "answer"
    subprocess.run([sys.executable, __file__, str(answer), *map(str, libraries)], check=True, stderr=subprocess.DEVNULL)
    operations = op_def_pb2.OpList.FromString(answer.with_suffix(".ops").read_bytes()).op
    kernels = kernel_def_pb2.KernelList.FromString(answer.with_suffix(".kernels").read_bytes()).kernel
    runs = {kernel.op for kernel in kernels if kernel.device_type in ("CPU", "DEFAULT")}
    # A leading underscore marks what only the runtime itself may put into a graph. A server compiles nothing with XLA
    # unless it is started with a flag of its own.
    return {
        op.name: sorted(attribute.name for attribute in op.attr)
        for op in operations
        if op.name in runs and not op.name.startswith(("_", "Xla"))
    }


def _unpack(work: Path, requirement: str, ending: str) -> list[Path]:
    """The libraries of a wheel whose names end so, downloaded once."""
    directory = work / requirement
    if not directory.exists():
        arguments = ["--no-deps", "--only-binary=:all:", f"--platform={_PLATFORM}", f"--python-version={_PYTHON}"]
        pip = [sys.executable, "-m", "pip", "download", "--quiet", *arguments]
        subprocess.run([*pip, f"--dest={directory}", requirement], check=True)
        (wheel,) = directory.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(directory, [n for n in archive.namelist() if ".so" in n and "pybinds" not in n])
        wheel.unlink()
    return sorted(directory.glob(f"**/*{ending}"))


def _ask(answer: Path, framework: str, runtime: str, *operations: str) -> None:
    """Runs in the process of its own: writes the registered operations and kernels, serialised."""
    ctypes.CDLL(framework, ctypes.RTLD_GLOBAL)
    handle = ctypes.CDLL(runtime, ctypes.RTLD_GLOBAL)

    class Buffer(ctypes.Structure):
        _fields_ = (("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p))

    handle.TF_NewStatus.restype = ctypes.c_void_p
    handle.TF_LoadLibrary.restype = ctypes.c_void_p
    handle.TF_GetCode.argtypes = [ctypes.c_void_p]
    status = ctypes.c_void_p(handle.TF_NewStatus())
    for library in operations:
        handle.TF_LoadLibrary(library.encode(), status)
        if handle.TF_GetCode(status) != 0:
            raise RuntimeError(f"{library} cannot be loaded")
    handle.TF_GetAllOpList.restype = handle.TF_GetAllRegisteredKernels.restype = ctypes.POINTER(Buffer)
    for suffix, buffer in ((".ops", handle.TF_GetAllOpList()), (".kernels", handle.TF_GetAllRegisteredKernels(status))):
        content = ctypes.string_at(buffer.contents.data, buffer.contents.length)
        answer.with_suffix(suffix).write_bytes(content)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _ask(Path(sys.argv[1]), *sys.argv[2:])
    else:
        main()
