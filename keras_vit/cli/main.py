"""The command keras-vit: one subcommand per file of this folder, none with logic of its own.

Nothing here imports Keras before a subcommand runs: `--help` answers at once. What takes memory is imported
where it is used, so that an import that fails is told in a sentence too.
"""

import sys
from inspect import getdoc
from typing import Annotated, Any

from keras_vit.cli.failures import debugging, exit_code_of, shown_streams
from keras_vit.text import say

DESCRIPTION = """Vision Transformers for your own images: train, evaluate, predict, export.

With --debug, anywhere, an error also prints its traceback. keras-vit --version prints the versions."""


def parse(arguments: list[str]) -> Any:
    """The subcommand of the arguments with its options, ready to be called.

    Raises:
        SystemExit: 0 after --help, 2 for arguments that do not fit.
        InputError: a value is out of its range.
    """
    from tyro.conf import OmitArgPrefixes, subcommand

    from keras_vit.cli.audit import Audit, Inspect
    from keras_vit.cli.cache import Cache
    from keras_vit.cli.compare import Compare
    from keras_vit.cli.evaluate import Evaluate
    from keras_vit.cli.explain import Explain
    from keras_vit.cli.export import Export
    from keras_vit.cli.predict import Predict
    from keras_vit.cli.request import Request
    from keras_vit.cli.search import Search
    from keras_vit.cli.serve import Serve
    from keras_vit.cli.shell import parse_words
    from keras_vit.cli.suggest import Suggest
    from keras_vit.cli.summary import Summary
    from keras_vit.cli.train import Train
    from keras_vit.cli.weights import Weights

    subcommands = (
        Annotated[Train, subcommand("train", description=getdoc(Train))]
        | Annotated[Evaluate, subcommand("evaluate", description=getdoc(Evaluate))]
        | Annotated[Predict, subcommand("predict", description=getdoc(Predict))]
        | Annotated[Explain, subcommand("explain", description=getdoc(Explain))]
        | Annotated[Summary, subcommand("summary", description=getdoc(Summary))]
        | Annotated[Weights, subcommand("weights", description=getdoc(Weights))]
        | Annotated[Audit, subcommand("audit", description=getdoc(Audit))]
        | Annotated[Inspect, subcommand("inspect", description=getdoc(Inspect))]
        | Annotated[Compare, subcommand("compare", description=getdoc(Compare))]
        | Annotated[Suggest, subcommand("suggest", description=getdoc(Suggest))]
        | Annotated[Search, subcommand("search", description=getdoc(Search))]
        | Annotated[Export, subcommand("export", description=getdoc(Export))]
        | Annotated[Request, subcommand("request", description=getdoc(Request))]
        | Annotated[Serve, subcommand("serve", description=getdoc(Serve))]
        | Annotated[Cache, subcommand("cache", description=getdoc(Cache))]
    )
    return parse_words(
        subcommands,
        arguments,
        prog="keras-vit",
        description=DESCRIPTION,
        config=(OmitArgPrefixes,),
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: the words after `keras-vit`; `None` takes them from the command line.

    Returns:
        The exit code, of `keras_vit.process.exit_codes`.
    """
    words = sys.argv[1:] if arguments is None else arguments
    given = [word for word in words if word != "--debug"]

    def run() -> int | None:
        if given[:1] in (["--version"], ["-V"]):
            from keras_vit.cli.versions import versions

            say(*versions())
            return None
        command = parse(given)
        with shown_streams():
            if hasattr(command, "on_all_devices"):
                command.on_all_devices(given)
            return command()

    with debugging(len(given) < len(words)):
        return exit_code_of(run)


if __name__ == "__main__":
    sys.exit(main())
