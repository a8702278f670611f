"""The command keras-vit: one subcommand per file of this folder, none with logic of its own.

Nothing here imports Keras before a subcommand runs: `--help` answers at once.
"""

import sys
from inspect import getdoc
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes, subcommand

from keras_vit.cli.cache import Cache
from keras_vit.cli.evaluate import Evaluate
from keras_vit.cli.export import Export
from keras_vit.cli.inspect import Inspect
from keras_vit.cli.predict import Predict
from keras_vit.cli.request import Request
from keras_vit.cli.search import Search
from keras_vit.cli.shell import exit_code_of, parse_words
from keras_vit.cli.summary import Summary
from keras_vit.cli.train import Train
from keras_vit.cli.weights import Weights


def parse(arguments: list[str]) -> Any:
    """The subcommand of the arguments with its options, ready to be called.

    Raises:
        SystemExit: 0 after --help, 2 for arguments that do not fit.
        InputError: a value is out of its range.
    """
    subcommands = (
        Annotated[Train, subcommand("train", description=getdoc(Train))]
        | Annotated[Evaluate, subcommand("evaluate", description=getdoc(Evaluate))]
        | Annotated[Predict, subcommand("predict", description=getdoc(Predict))]
        | Annotated[Summary, subcommand("summary", description=getdoc(Summary))]
        | Annotated[Weights, subcommand("weights", description=getdoc(Weights))]
        | Annotated[Inspect, subcommand("inspect", description=getdoc(Inspect))]
        | Annotated[Search, subcommand("search", description=getdoc(Search))]
        | Annotated[Export, subcommand("export", description=getdoc(Export))]
        | Annotated[Request, subcommand("request", description=getdoc(Request))]
        | Annotated[Cache, subcommand("cache", description=getdoc(Cache))]
    )
    return parse_words(
        subcommands,
        arguments,
        prog="keras-vit",
        description="Vision Transformers for your own images: train, evaluate, predict, export.",
        config=(OmitArgPrefixes,),
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: the words after `keras-vit`; `None` takes them from the command line.

    Returns:
        The exit code, of `keras_vit.process.exit_codes`.
    """
    arguments = sys.argv[1:] if arguments is None else arguments

    def run() -> int | None:
        command = parse(arguments)
        if isinstance(command, Train):
            command.on_all_devices(arguments)
        return command()

    return exit_code_of(run)


if __name__ == "__main__":
    sys.exit(main())
