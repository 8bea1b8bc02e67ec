"""The page in a browser: `python -m simcse_tf.demo`."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from simcse_tf import cli
from simcse_tf.errors import UserError

# Larger uploads are refused while they come in.
_MAX_UPLOAD = "50mb"


@dataclass(frozen=True)
class DemoConfig:
    """Flags of the command."""

    # Where exported models are: SavedModels, NAME/<version>/, and LiteRT directories, NAME/. Need not exist yet.
    models: Path = Path("saved_models")
    # Where runs are, which Learn may begin with; its own trainings are in RUNS/learn/NAME/.
    runs: Path = Path("runs")
    # More encoders that Learn may begin with, beside runs and the presets on this machine: presets, or directories.
    presets: tuple[str, ...] = ()
    # Let everybody who can open the page start trainings. Otherwise nobody can on a page that other machines reach.
    allow_training: bool = False
    # Addresses of models in TF Serving, such as http://localhost:8501/v1/models/quickstart.
    served: tuple[str, ...] = ()
    # Who may connect: 127.0.0.1 is this machine alone, 0.0.0.0 anyone who can reach it.
    host: str = "127.0.0.1"
    # Where it listens.
    port: int = 7860
    # USER:PASSWORD that the page asks for. Every user of a machine can read flags: DEMO_AUTH in the environment does
    # the same.
    auth: str | None = None
    # The path under which a proxy shows the page, such as /demo.
    root_path: str | None = None
    # Make a public link through Gradio's servers.
    share: bool = False


def main(arguments: list[str]) -> None:
    """The command: serves until it is interrupted."""
    config = cli.parse(DemoConfig, arguments, prog=cli.prog("demo"), description=str(__doc__))
    auth = _auth(config.auth or os.environ.get("DEMO_AUTH"))
    if not 1 <= config.port <= 65535:
        raise UserError(f"--port {config.port}: expected 1 to 65535.")
    if config.models.exists() and not config.models.is_dir():
        raise UserError(f"--models {config.models}: not a directory. Expected one that holds exported models.")
    if config.runs.exists() and not config.runs.is_dir():
        raise UserError(f"--runs {config.runs}: not a directory. Expected one that holds runs, or is not there yet.")
    for address in config.served:
        if not address.startswith(("http://", "https://", "grpc://")):
            raise UserError(
                f"--served {address}: expected http://host:8501/v1/models/NAME or grpc://host:8500/NAME. Models on "
                "disk are found under --models."
            )
    with tempfile.TemporaryDirectory(prefix="simcse_tf_demo_") as folder:
        # Read when Gradio is imported: no telemetry, and uploads in a private folder.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        _serve(config, auth, Path(folder))


def _serve(config: DemoConfig, auth: tuple[str, str] | None, folder: Path) -> None:
    try:
        from simcse_tf.demo import app
    except ModuleNotFoundError as e:
        raise UserError(f"the page needs {e.name}: pip install 'simcse-tf[demo]', or run: make demo") from e
    from simcse_tf.demo.jobs import Jobs
    from simcse_tf.demo.models import Registry

    registry = Registry(config.models, config.served)
    jobs = Jobs(config.runs, config.models, config.presets) if config.allow_training or _is_private(config) else None
    blocks = app.build(registry, folder, jobs)
    # Quick requests side by side; those that take longer have a queue of their own.
    blocks.queue(default_concurrency_limit=8, max_size=1000)
    try:
        _, address, public = blocks.launch(
            server_name=config.host,
            server_port=config.port,
            auth=auth,
            root_path=config.root_path,
            share=config.share,
            max_file_size=_MAX_UPLOAD,
            allowed_paths=[],
            prevent_thread_lock=True,
            quiet=True,
            enable_monitoring=False,
            ssr_mode=False,
            **app.launch_options(),
        )
    except OSError as e:
        raise UserError(
            f"--host {config.host} --port {config.port}: cannot listen there. Is the port taken? Choose another."
        ) from e
    print(f"{public or address} (Ctrl-C ends it)", flush=True)
    if jobs:
        jobs.keep_going()
    # The first visitor should not wait for the model.
    threading.Thread(target=_warm_up, args=(registry,), daemon=True).start()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        ended.wait()
    finally:
        blocks.close(verbose=False)


def _warm_up(registry: object) -> None:
    from simcse_tf.demo.models import Registry

    assert isinstance(registry, Registry)
    keys = registry.newest()
    for key in keys[:2]:
        try:
            registry.model(key).reference()
        except UserError as e:
            cli.console().print(f"{key}: {e}", markup=False)
            continue
        cli.console().print(f"{key}: ready", markup=False)


def _is_private(config: DemoConfig) -> bool:
    """Whether only this machine can open the page."""
    local = config.host == "localhost" or config.host.startswith("127.") or config.host == "::1"
    return local and not config.share and config.root_path is None


def _auth(given: str | None) -> tuple[str, str] | None:
    if given is None:
        return None
    user, colon, password = given.partition(":")
    if not (user and colon and password):
        raise UserError("--auth: expected USER:PASSWORD.")
    return user, password


if __name__ == "__main__":
    cli.run(main)
