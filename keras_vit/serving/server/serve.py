"""serve(): a run or a bundle on a port, until Ctrl-C."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from keras_vit.errors import InputError
from keras_vit.runs.ensemble import one_run
from keras_vit.runs.wanted import Costs, MinRecall
from keras_vit.serving.version_folder import check_name
from keras_vit.text import say
from keras_vit.validation import validated


@validated
class Listening:
    """Where and how long a server listens: see `serve`."""

    host: str
    port: Annotated[int, Field(ge=0, le=65535)]
    timeout: Annotated[float, Field(gt=0, le=3600)]


def serve(
    path: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8501,
    name: str | None = None,
    timeout: float = 30.0,
    allow_hosts: Sequence[str] = (),
    fold: int | None = None,
    flips: bool = False,
    accept_risk: float | None = None,
    min_recall: MinRecall = None,
    costs: Costs = None,
) -> None:
    """Answers requests of TensorFlow Serving's REST API about one model, and shows a page to try it.

    Args:
        path: a run folder, the folder of a bundle's version, or of a model, whose newest version is taken.
        host: that it listens on; other machines reach it only on another one than loopback.
        port: 0 takes a free one.
        name: of the model; `None` takes that of the bundle, and `"vit"` for a run.
        timeout: seconds that a request may take to arrive, that it waits for its answer, and that this may
            take to be read.
        allow_hosts: further names under which browsers may ask.
        fold: number of the fold, where `path` is the folder of several runs.
        flips, accept_risk, min_recall, costs: as of `keras_vit.predict`, for a run; a bundle has its own.

    Raises:
        InputError: an argument cannot be used, the port is taken, or the extra `serve` is not installed.
    """
    settings = Listening(host, port, timeout)
    _require_packages()
    from keras_vit.serving.server.app import application
    from keras_vit.serving.server.body import Budget
    from keras_vit.serving.server.guard import Guard, is_loopback
    from keras_vit.serving.server.listen import Listener, address_of, bind
    from keras_vit.serving.server.page import Page
    from keras_vit.serving.server.rest import Rest
    from keras_vit.serving.server.served import Served, bundle_folder, load_bundle, load_served_run
    from keras_vit.serving.server.worker import Worker

    if name is not None:
        check_name(name)
    with bind(settings.host, settings.port) as bound:
        found = bundle_folder(Path(path))
        served: Served
        if found is not None:
            given = {
                "--fold": fold,
                "--accept-risk": accept_risk,
                "--min-recall": min_recall,
                "--costs": costs,
            }
            given["--flips-at-test"] = flips or None
            _refuse_for_bundle(Path(path), [option for option, value in given.items() if value is not None])
            folder, own_name, version = found
            served = load_bundle(folder, name or own_name, version)
        else:
            run = one_run(path, fold).deciding(min_recall, costs).accepting(accept_risk)
            served = load_served_run(run, name or "vit", flips)
        worker = Worker(served)
        worker.start()
        address = address_of(bound, host)
        rest = Rest(worker, timeout)

        def ready() -> None:
            say(f"{served.about}: model {served.name}, version {served.version}")
            if not is_loopback(host):
                say(
                    f"--host {host}: every machine that reaches this one can ask; there is no password and "
                    "no encryption.",
                    stream=sys.stderr,
                )
            say(f"ready at {address} (Ctrl-C ends it)", flush=True)

        app = application(rest, Page(served), Guard(host, allow_hosts), Budget(timeout))
        Listener(app, bound, timeout, ready).answer()
        rest.end()
        worker.end()
        say(f"ended; answered about {worker.answered:,} images")


def _refuse_for_bundle(path: Path, options: list[str]) -> None:
    if options:
        raise InputError(f"{path} is a bundle, which has its own answers: omit {', '.join(options)}.")


def _require_packages() -> None:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(
            f'Serving needs starlette and uvicorn: pip install "keras-vit-defects[serve]". ({error})'
        ) from error
