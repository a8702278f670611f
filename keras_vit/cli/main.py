"""The command keras-vit: one subcommand a verb, no logic of its own.

Nothing here imports Keras before a verb runs: `--help` answers at once.
"""

import contextlib
import dataclasses
import errno
import json
import logging
import os
import sys
import warnings
from dataclasses import dataclass, field
from inspect import getdoc
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, Positional, subcommand

from keras_vit.cli.parsing import parse_words
from keras_vit.cli.serving import Export, Request
from keras_vit.errors import DistributionError, InputError, ServerError
from keras_vit.training.config import TrainConfig
from keras_vit.training.config_file import read_config
from keras_vit.training.recipe import RECIPES

FINE, FAILED, WRONG_USAGE = 0, 1, 2


@dataclass(frozen=True)
class Train:
    """Train a ViT on images and leave a run folder with the model and its report.

    Examples:
      keras-vit train
      keras-vit train --data images --model S/16 --epochs 50 --out runs/s16
      keras-vit train --data images --recipe lab --model defect/4 --seed 1
      keras-vit train --data images --depth 8 --drop-path-rate 0.1
      keras-vit train --config best.json --merge-validation --out runs/best
      keras-vit train --out runs/s16 --resume
    """

    recipe: Literal["default", "lab"] = "default"
    """the recipe that the options below change; lab is the reference study's; without this option, that of
    the file given with --config"""
    config: Path | None = None
    """settings that the options below change: the best.json of a search, or the config.json of a run"""
    run: TrainConfig = field(default_factory=TrainConfig)
    json: bool = False
    """print the folder, the report and the figures as JSON"""

    def __call__(self):
        from keras_vit.distribution.cluster import current_process_is_chief
        from keras_vit.training.run import train

        # A script that asks for JSON reads nothing else on the standard output.
        with contextlib.redirect_stdout(sys.stderr) if self.json else contextlib.nullcontext():
            run = train(self.run)
        if not current_process_is_chief():
            return
        best, last = run.metrics["best"], run.metrics["last"]
        if self.json:
            answer: dict[str, Any] = {"run": str(run.path), "report": str(run.path / "report.html")}
            for name, found in (("best", best), ("last", last)):
                answer[name] = {key: found[key] for key in ("epoch", "accuracy", "accuracy_interval")}
            print(json.dumps(answer))
            return
        for name, found in (("best by validation", best), ("last", last)):
            print(f"test accuracy, {name + ' epoch':24} {found['epoch']:4}: {_accuracy(found)}")
        print(f"report: {run.path / 'report.html'}")


@dataclass(frozen=True)
class Evaluate:
    """Judge the model of a run on its test images, or on other images.

    Examples:
      keras-vit evaluate runs/first
      keras-vit evaluate runs/first --data more_images --json
    """

    run: Positional[Path]
    """a run folder"""
    data: str | None = None
    """other images, all of them judged; without it, the run's own test images"""
    json: bool = False
    """print all figures as JSON"""

    def __call__(self):
        from keras_vit.runs.predict import evaluate

        found = evaluate(self.run, self.data)
        if self.json:
            print(json.dumps(found))
            return
        print(f"{found['source']}: accuracy {_accuracy(found)}")
        width = max(len(row["name"]) for row in found["per_class"])
        print(f"{'class':{width}}  precision  recall      F1  images")
        for row in found["per_class"]:
            shares = "".join(_share(row[key]) for key in ("precision", "recall", "f1"))
            print(f"{row['name']:{width}}   {shares} {row['support']:7}")


@dataclass(frozen=True)
class Predict:
    """Classify image files with the model of a run; those unlike its training images are marked as rejected.

    Examples:
      keras-vit predict runs/first strip_17.jpg strip_18.png
      keras-vit predict runs/first strip_17.jpg --json
    """

    run: Positional[Path]
    """a run folder"""
    images: Positional[tuple[Path, ...]]
    """image files"""
    json: bool = False
    """print a JSON list with all probabilities"""

    def __call__(self):
        from keras_vit.runs.predict import predict

        if not self.images:
            raise InputError("Give at least one image file after the run folder.")
        found = predict(self.run, self.images)
        if self.json:
            print(json.dumps([dataclasses.asdict(item) for item in found]))
        else:
            width = max(len(item.image) for item in found)
            for item in found:
                print(f"{item.image:{width}}  {item.error or _answer(item)}")
        return FAILED if any(item.error for item in found) else FINE


@dataclass(frozen=True)
class Summary:
    """Show the layers of a model: output shapes, parameters, mult-adds, memory.

    Examples:
      keras-vit summary B/16
      keras-vit summary defect/4 --image-shape 28 28 1 --num-classes 6 --batch-size 64
    """

    model: Positional[str]
    """size/patch, such as B/16, or a run folder, or a .keras file"""
    image_shape: tuple[int, int, int] | None = None
    """height, width and channels; by default those the size is used at"""
    num_classes: int = 1000
    """logits"""
    batch_size: int = 1
    """images a batch, for mult-adds and memory"""
    json: bool = False
    """print the table as JSON"""

    def __call__(self):
        table = self._table()
        print(json.dumps(table.to_dict()) if self.json else table)

    def _table(self):
        from keras_vit.model.config import default_channels, default_image_size
        from keras_vit.model.summary import summary
        from keras_vit.model.vit import ViT
        from keras_vit.runs.folder import load_model, load_run

        if Path(self.model).is_dir():
            return _or_input_error(summary, load_run(self.model).model, self.batch_size)
        if self.model.endswith(".keras"):
            return _or_input_error(summary, load_model(Path(self.model)), self.batch_size)
        size = default_image_size(self.model)
        shape = self.image_shape or (size, size, default_channels(self.model))
        model = _or_input_error(ViT.from_variant, self.model, image_shape=shape, num_classes=self.num_classes)
        return _or_input_error(summary, model, self.batch_size)


@dataclass(frozen=True)
class Inspect:
    """Look over images before training: classes, sizes, unreadable files, duplicates.

    Examples:
      keras-vit inspect images
      keras-vit inspect images.zip --json
    """

    data: Positional[str | None] = None
    """what train --data takes; without it, the drawn steel defects"""
    seed: int = 0
    """of the split that duplicates are looked for across"""
    json: bool = False
    """print the findings as JSON"""

    def __call__(self):
        from keras_vit.data.audit import audit_images
        from keras_vit.data.sources import load_image_set
        from keras_vit.data.split import split_image_set

        image_set = load_image_set(self.data)
        audit = audit_images(image_set, split_image_set(image_set, seed=self.seed))
        print(json.dumps(audit.to_dict()) if self.json else audit)
        return FAILED if audit.unreadable else FINE


def _or_input_error(make, *arguments, **options):
    """What a layer or model refuses is here a mistake of the person who typed it."""
    try:
        return make(*arguments, **options)
    except ValueError as error:
        raise InputError(str(error)) from error


def _accuracy(found) -> str:
    low, high = found["accuracy_interval"]
    return (
        f"{found['accuracy']:.1%} ({found['correct']} of {found['images']}; "
        f"95 % interval {low:.1%} to {high:.1%})"
    )


def _answer(item) -> str:
    rejected = "  rejected: unlike the training images" if item.reject else ""
    return f"{item.label}  {item.confidence:.1%}{rejected}"


def _share(value) -> str:
    return f"{'-' if value is None else format(value, '.3f'):>8}"


def parse(arguments: list[str]):
    """The verb that the arguments ask for, ready to be called.

    Raises:
        SystemExit: 0 after --help, 2 for arguments that do not fit.
        InputError: a value is out of its range.
    """
    train = _train_defaults(arguments) if arguments[:1] == ["train"] else Train()
    verbs = (
        Annotated[Train, subcommand("train", default=train, description=getdoc(Train))]
        | Annotated[Evaluate, subcommand("evaluate", description=getdoc(Evaluate))]
        | Annotated[Predict, subcommand("predict", description=getdoc(Predict))]
        | Annotated[Summary, subcommand("summary", description=getdoc(Summary))]
        | Annotated[Inspect, subcommand("inspect", description=getdoc(Inspect))]
        | Annotated[Export, subcommand("export", description=getdoc(Export))]
        | Annotated[Request, subcommand("request", description=getdoc(Request))]
    )
    return parse_words(
        verbs,
        arguments,
        prog="keras-vit",
        description="Vision Transformers for your own images: train, judge, ask.",
        config=(OmitArgPrefixes,),
    )


def _train_defaults(arguments) -> Train:
    """What the words say that set defaults: they are read before the rest, and --help shows them."""
    config, name = _last(arguments, "--config"), _last(arguments, "--recipe")
    run = TrainConfig() if config is None else read_config(Path(config))
    if name not in RECIPES:  # not given, or wrong, as the parser will say
        return Train(run=run)
    # A recipe is one of the options: it takes the place of the file's as a whole.
    run = dataclasses.replace(run, recipe=RECIPES[name])
    return Train(recipe=name, run=run)  # type: ignore[arg-type]


def _last(arguments, option) -> str | None:
    """The word given for an option; of several the last counts, as the parser has it."""
    found = None
    for i, word in enumerate(arguments):
        if word.startswith(f"{option}="):
            found = word.removeprefix(f"{option}=")
        elif word == option and i + 1 < len(arguments):
            found = arguments[i + 1]
    return found


def main(arguments: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: the words after `keras-vit`; `None` takes them from the command line.

    Returns:
        The exit code: 0 fine, 1 failed, 2 wrong usage.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        verb = parse(arguments)
        if not (isinstance(verb, Request) and verb.over_rest):
            _import_quietly()
        if isinstance(verb, Train):
            _start_processes(verb.run, arguments)
        return verb() or FINE
    except DistributionError as error:
        code = _complain(str(error), FAILED)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # the backends would wait for the lost process once more
    except ServerError as error:
        return _complain(str(error), FAILED, error)
    except InputError as error:
        return _complain(str(error), WRONG_USAGE)
    except KeyboardInterrupt as stop:
        return _complain("Stopped.", FAILED, stop)
    except BrokenPipeError:
        # The reader of our output is gone; Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" at {error.filename}" if error.filename else ""
            return _complain(f"The disk is full{where}: make room.", FAILED, error)
        if error.filename is None:
            raise
        return _complain(f"{error.filename}: {error.strerror}.", FAILED, error)


def _start_processes(config, arguments):
    """On torch, where each device has a process of its own, goes on as torchrun with the same arguments."""
    import keras

    if keras.backend.backend() == "torch":
        from keras_vit.distribution.torch_engine import torchrun_command

        command = torchrun_command(config.distribute, config.devices, ["-m", "keras_vit", *arguments])
        if command:
            os.environ.setdefault("OMP_NUM_THREADS", "1")
            os.execv(command[0], command)


def _complain(sentence, code, error=None) -> int:
    """Says what went wrong, and what `train` noted on the error: how its run goes on."""
    print(" ".join(["keras-vit:", sentence, *getattr(error, "__notes__", ())]), file=sys.stderr)
    return code


def _import_quietly():
    """Imports the backend without TensorFlow's lines about the hardware, which no log level reaches.

    Whoever sets TF_CPP_MIN_LOG_LEVEL sees what it lets through.
    """
    warnings.filterwarnings("ignore", module=r"(keras|tensorflow|jax|torch|tensorboard)\b.*")
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import keras  # noqa: F401
        import tensorflow as tf

        tf.config.list_physical_devices()  # looks for GPUs, and says so
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
