"""Serves a model over HTTP: `python -m simcse_tf.serve MODEL [--port 8501]`.

Speaks TF Serving's REST interface, so that `Client("http://localhost:8501/v1/models/NAME")` works, and OpenAI's
`/v1/embeddings`; has `/metrics` and `/healthz`. TensorFlow is imported only if MODEL needs it.
"""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EADDRINUSE
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from simcse_tf import cli, loading
from simcse_tf.checks import check_range, require
from simcse_tf.errors import UserError

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette

    from simcse_tf.serving.client import Client

_DESCRIPTION = (
    "Serve a model over HTTP: TF Serving's REST interface at /v1/models/NAME:predict, OpenAI's at /v1/embeddings, "
    "Prometheus' /metrics, /healthz. docs/serving.md says more."
)
# Connections that wait to be accepted.
_BACKLOG = 2048
# Seconds: longer than load balancers keep an idle connection, so that none is closed just as a request comes in.
_KEEP_ALIVE = 75
# Seconds for the requests that are under way when the server is stopped; Kubernetes kills after 30.
_GRACEFUL_SHUTDOWN = 25


@dataclass(frozen=True)
class ServeConfig:
    """Flags of the command."""

    # An exported model's directory, a run directory, a preset name, a Hugging Face directory, or a TF Serving address.
    model: tyro.conf.Positional[str | None] = None
    # Who may connect: 127.0.0.1 is this machine alone, 0.0.0.0 anyone who can reach it.
    host: str = "127.0.0.1"
    # Where it listens; 0 is any free port.
    port: int = 8501
    # The model's name in addresses. Default: that of its directory.
    name: str | None = None
    # Numbers of a vector to keep, the first ones, scaled to unit length again; for models that were trained with
    # --matryoshka. Default: all. A request to /v1/embeddings may ask for fewer.
    dim: int | None = None
    # Texts per call of the model.
    batch_size: int = 64
    # Texts of a request; more are refused.
    max_texts: int = 2048
    # Bytes of a request; more are refused.
    max_bytes: int = 4 * 2**20
    # Characters of a text; more are refused, though a model reads only the first some hundred words of it.
    max_characters: int = 100_000
    # Texts that may wait for the model; beyond them requests get status 503 and Retry-After.
    max_waiting: int = 4096


def main(arguments: list[str]) -> None:
    """The command: serves until it is interrupted."""
    config = cli.parse(ServeConfig, arguments, prog=cli.prog("serve"), description=_DESCRIPTION)
    name = _check(config)
    assert config.model is not None
    with _listener(config.host, config.port) as listener:
        with cli.lean_imports():
            model = loading.load_client(config.model, dim=config.dim)
        _serve(config, name, model, listener)


def _check(config: ServeConfig) -> str:
    """Checks the flags; returns the model's name in addresses."""
    for module in ("orjson", "prometheus_client", "starlette", "uvicorn"):
        require(module, "serve", f"the server needs {module}")
    if config.model is None:
        raise UserError("MODEL is needed: an exported model, a run, a preset such as minilm, or an address.")
    check_range("port", config.port, low=0, high=65535)
    for setting in ("batch_size", "max_texts", "max_bytes", "max_characters", "max_waiting"):
        check_range(setting, getattr(config, setting), low=1)
    if config.max_texts > config.max_waiting:
        raise UserError(
            f"`max_texts` {config.max_texts} is more than `max_waiting` {config.max_waiting}: a request of so many "
            "would always be refused. Lower the first or raise the second."
        )
    name = config.name or _name(config.model)
    if not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"`name` {name!r}: expected letters, digits, dots, dashes and underscores.")
    return name


def _name(model: str) -> str:
    """`quickstart` from `saved_models/quickstart/1`, and from the address of such a model."""
    if "/v1/models/" in model:
        return model.split("/v1/models/", 1)[1].split("/", maxsplit=1)[0]
    parts = (str(Path(model).resolve()) if Path(model).exists() else model).rstrip("/").split("/")
    if len(parts) > 1 and _is_version(parts[-1]):
        parts.pop()
        if parts[-1] == "versions":
            parts.pop()
    return parts[-1]


def _is_version(part: str) -> bool:
    return re.fullmatch(r"[0-9]+", part) is not None


@contextmanager
def _listener(host: str, port: int) -> Iterator[socket.socket]:
    """A socket with this address, taken before the model is loaded; it does not listen yet.

    Raises:
        UserError: The address is taken, not this machine's, or forbidden.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except UnicodeError as e:  # a name with empty or endless parts
        raise UserError(f"`host` {host}: is not a host's name ({e}).") from e
    except OSError as e:
        raise _cannot_listen(host, port, e) from e
    with listener:
        yield listener


def _cannot_listen(host: str, port: int, e: OSError) -> UserError:
    advice = " Another program does: choose another port, or 0 for any free one." if e.errno == EADDRINUSE else ""
    return UserError(f"`host` {host} `port` {port}: cannot listen there ({e.strerror}).{advice}")


def _serve(config: ServeConfig, name: str, model: Client, listener: socket.socket) -> None:
    from simcse_tf.serving.server import Limits, application

    limits = Limits(
        body_bytes=config.max_bytes,
        texts=config.max_texts,
        characters=config.max_characters,
        waiting=config.max_waiting,
        batch=config.batch_size,
    )
    version = Path(model.name).name
    made = server(application(model, name=name, version=version if _is_version(version) else "1", limits=limits))
    try:
        listener.listen(_BACKLOG)
    except OSError as e:  # taken while the model was loaded
        raise _cannot_listen(config.host, config.port, e) from e
    # Until uvicorn takes the signal, and after it: then it repeats it for whoever handled it before.
    signal.signal(signal.SIGTERM, lambda *_: setattr(made, "should_exit", True))
    # Connections are accepted from here on.
    address = f"http://{_shown(config.host)}:{listener.getsockname()[1]}/v1/models/{name}"
    example = """'{"inputs": {"text": ["A man plays the guitar."]}}'"""
    print(f"{address} is ready (Ctrl-C ends it). Try: curl -d {example} {address}:predict", flush=True)
    made.run([listener])


def server(app: Starlette) -> uvicorn.Server:
    """What runs the application."""
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=_GRACEFUL_SHUTDOWN,
        )
    )


def _shown(host: str) -> str:
    """The host in the address under which this machine reaches the server."""
    if host in ("0.0.0.0", "::"):
        return "localhost"
    return f"[{host}]" if ":" in host else host


if __name__ == "__main__":
    cli.run(main)
