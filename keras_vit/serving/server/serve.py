"""serve(): a run or a bundle on a port, until Ctrl-C."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from keras_vit.errors import InputError
from keras_vit.runs.ensemble import one_run
from keras_vit.runs.folder import CONFIG, ENSEMBLE
from keras_vit.runs.wanted import Costs, MinRecall
from keras_vit.serving.version_folder import check_name
from keras_vit.text import say
from keras_vit.validation import validated

if TYPE_CHECKING:
    from keras_vit.serving.server.listen import Listener
    from keras_vit.serving.server.served import Served


@validated
class Listening:
    """Where and how long a server listens: see `serve`."""

    host: str
    port: Annotated[int, Field(ge=0, le=65535)]
    timeout: Annotated[float, Field(gt=0, le=3600)]


class Server:
    """A model that answers at a port, and shows a page to try it. A context manager, which frees the port.

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

    Attributes:
        address: such as `"http://127.0.0.1:8501/"`.
        served: the model.
        worker: runs it.
    """

    def __init__(
        self,
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
    ):
        Listening(host, port, timeout)
        if name is not None:
            check_name(name)
        _require_packages()
        from keras_vit.serving.server.listen import address_of, bind

        self.timeout = timeout
        self._bound = bind(host, port)
        try:
            self.address = address_of(self._bound, host)
            self.served = _load(Path(path), name, fold, flips, accept_risk, min_recall, costs)
            self._listener = self._application(host, allow_hosts)
        except BaseException:
            self._bound.close()
            raise

    def _application(self, host: str, allow_hosts: Sequence[str]) -> "Listener":
        from keras_vit.serving.server.app import application
        from keras_vit.serving.server.body import Budget
        from keras_vit.serving.server.guard import Guard
        from keras_vit.serving.server.listen import Listener
        from keras_vit.serving.server.page import Page
        from keras_vit.serving.server.rest import Rest
        from keras_vit.serving.server.worker import Worker

        page = Page(self.served)
        self.worker = Worker(self.served)
        self.worker.start(page.warm_up)
        self._rest = Rest(self.worker, self.timeout)
        app = application(self._rest, page, Guard(host, allow_hosts), Budget(self.timeout))
        return Listener(app, self._bound, self.timeout)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error: object) -> None:
        self._rest.end()
        self.worker.end(self.timeout)
        self._bound.close()

    def answer(self, ready: Callable[[], None]) -> None:
        """Answers until `stop`, SIGINT or SIGTERM; then what was asked before is still answered.

        Args:
            ready: called when the server listens.
        """
        self._listener.answer(ready)

    def stop(self) -> None:
        """Ends `answer`, from any thread."""
        self._listener.should_exit = True


def serve(path: str | Path, *, host: str = "127.0.0.1", **options: Any) -> None:
    """Answers requests about one model until SIGINT or SIGTERM, and prints where.

    Args:
        path, host, **options: as of `Server`.

    Raises:
        InputError: as `Server`.
    """
    say(f"making {path} ready", stream=sys.stderr)
    with Server(path, host=host, **options) as server:
        from keras_vit.serving.server.guard import is_loopback

        def ready() -> None:
            served = server.served
            say(f"{served.about}: model {served.name}, version {served.version}")
            if not is_loopback(host):
                say(
                    f"--host {host}: every machine that reaches this one can ask; there is no password and "
                    "no encryption.",
                    stream=sys.stderr,
                )
            say(f"ready at {server.address} (Ctrl-C ends it)", flush=True)

        server.answer(ready)
    say(f"ended; answered about {server.worker.answered:,} images")


def _load(
    path: Path,
    name: str | None,
    fold: int | None,
    flips: bool,
    accept_risk: float | None,
    min_recall: MinRecall,
    costs: Costs,
) -> "Served":
    from keras_vit.serving.server.served import bundle_folder, load_bundle, load_served_run

    if not path.exists():
        raise InputError(
            f"There is no {path}: give a run folder, or the folder of a bundle, such as models/vit."
        )
    found = None if any((path / file).is_file() for file in (CONFIG, ENSEMBLE)) else bundle_folder(path)
    if found is None:
        run = one_run(path, fold).deciding(min_recall, costs).accepting(accept_risk)
        return load_served_run(run, name or "vit", flips)
    given = {"--fold": fold, "--accept-risk": accept_risk, "--min-recall": min_recall, "--costs": costs}
    options = [option for option, value in given.items() if value is not None]
    options += ["--flips-at-test"] if flips else []
    if options:
        raise InputError(f"{path} is a bundle, which has its own answers: omit {', '.join(options)}.")
    folder, own_name, version = found
    return load_bundle(folder, name or own_name, version)


def _require_packages() -> None:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(
            f'Serving needs starlette and uvicorn: pip install "keras-vit-defects[serve]". ({error})'
        ) from error
