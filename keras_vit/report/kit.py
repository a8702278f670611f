"""What all pages share: the template environment, numbers in words, the plot style, pictures as data URIs.

A page is a template `NAME.html.jinja` beside this file, and a module `NAME.py` that calls
`render("NAME", ...)`. A page needs no network: plots and pictures are data URIs. Only pages where a person
decides have a script.
"""

import base64
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vit.text import shown, shown_paragraphs

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def render(page: str, **parts: Any) -> str:
    """The HTML of a page, made from `PAGE.html.jinja`, which can use the macros, the CSS and the filters."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("keras_vit.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters |= {
        "breakable": breakable,
        "whole_options": whole_options,
        "shown": shown,
        "percent": percent,
        "decimal": decimal,
        "count": count,
        "compact": compact,
        "output_shape": output_shape,
    }
    return environment.get_template(f"{page}.html.jinja").render(**parts)


def _visible(value: Any) -> Any:
    """What the page shows of a value: names that others have written cannot hide or turn the text."""
    if not isinstance(value, str):
        return value
    return type(value)(shown_paragraphs(value))  # Markup, which is escaped already, stays Markup


# Numbers in words. The space before a unit does not break (U+00A0); an en dash stands for an unknown value.

UNKNOWN = "\u2013"


def percent(fraction: float | None) -> str:
    """0.8639 as "86.4 %". Only exactly 1 is shown as 100 %, only exactly 0 as 0 %."""
    if fraction is None or math.isnan(fraction):
        return UNKNOWN
    if 0 < fraction < 0.0005:
        return "<\u00a00.1\u00a0%"
    if 0.9995 <= fraction < 1:
        return ">\u00a099.9\u00a0%"
    return f"{100 * fraction:.1f}\u00a0%"


def decimal(number: float | None) -> str:
    """0.86391 as "0.864"."""
    return UNKNOWN if number is None or math.isnan(number) else f"{number:.3f}"


def signed(number: float, digits: int) -> str:
    """-0.123 as "−0.12", with a true minus sign; a number that rounds to zero has no sign."""
    rounded = round(number, digits)
    return f"{rounded:+.{digits}f}".replace("-", "\u2212") if rounded else f"{0:.{digits}f}"


def count(number: int | None) -> str:
    """508166 as "508,166"."""
    return UNKNOWN if number is None else f"{number:,}"


def compact(number: float | None) -> str:
    """32320000 as "32.32 M"."""
    if number is None:
        return UNKNOWN
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.2f}\u00a0{unit}"
    return f"{number:g}"


def shape(sizes: Sequence[int]) -> str:
    """(28, 28, 1) as "28 \u00d7 28 \u00d7 1"."""
    return " \u00d7 ".join(str(size) for size in sizes) or UNKNOWN


def output_shape(sizes: Any) -> str:
    """(None, 49, 64), or (1, 49, 64), as "49 \u00d7 64": without the batch. Text stays unchanged."""
    if sizes is None or isinstance(sizes, str):
        return sizes or UNKNOWN
    if any(isinstance(size, Sequence) for size in sizes):
        return ", ".join(output_shape(size) for size in sizes)
    return shape(sizes[1:])


def duration(seconds: float) -> str:
    """312.4 as "5 min 12 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}\u00a0h {minutes}\u00a0min"
    return f"{minutes}\u00a0min {rest}\u00a0s" if minutes else f"{seconds:.1f}\u00a0s"


def words(value: Any) -> str:
    """A plain value as readable text: True as "yes", [1, 0.5] as "1, 0.5", {"a": 1} as "a: 1"."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {words(v)}" for k, v in value.items() if v is not None) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(words(v) for v in value) or "none"
    return str(value)


def breakable(name: str) -> "Markup":
    """A class or file name as escaped HTML that may break into a new line after `_` and `/`."""
    from markupsafe import Markup, escape

    return escape(name).replace("_", Markup("_<wbr>")).replace("/", Markup("/<wbr>"))


def whole_options(text: str) -> "Markup":
    """A sentence as escaped HTML, whose words such as `--image-size` stay in one line."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"--[\w-]+", r'<span class="option">\g<0></span>', str(escape(text))))


NAMES = {
    "activation": "activation",
    "attention_dropout_rate": "dropout of the attention",
    "class_position": "position of the class token",
    "clip_norm": "largest norm of the gradients",
    "cutmix": "CutMix",
    "dim": "width of a token",
    "drop_path_rate": "stochastic depth",
    "dropout_rate": "dropout",
    "dtype": "numbers",
    "ema_decay": "moving average of the weights",
    "final_norm": "last normalisation",
    "flips_at_test": "mirror images at the test",
    "global_batch_size": "batch size on all devices",
    "head_dim": "width of a head",
    "head_hidden_dim": "hidden width of the classifier",
    "head_activation": "activation of the classifier",
    "init": "begins with",
    "layer_decay": "decay of the learning rate by layer",
    "lora_on": "LoRA on",
    "lora_rank": "rank of LoRA",
    "lr": "learning rate",
    "mixup": "Mixup",
    "mlp_bias": "bias of the MLP",
    "mlp_dim": "width of the MLP",
    "model_config": "model settings",
    "norm_epsilon": "epsilon of the normalisation",
    "num_classes": "classes",
    "num_heads": "heads",
    "num_registers": "registers",
    "patch_bias": "bias of the patches",
    "patch_norm": "normalised patches",
    "pre_norm": "normalisation before the blocks",
    "projection_bias": "bias after the attention",
    "python": "Python",
    "qk_norm": "normalised queries and keys",
    "qkv_bias": "bias of queries, keys and values",
    "rand_augment": "RandAugment",
    "remat": "blocks computed again to save memory",
    "seconds": "duration",
    "sha256": "SHA-256",
    "std": "standard deviation",
    "tune": "trained weights",
    "unfreeze_every": "epochs between unfreezing",
    "url": "address",
    "xla": "XLA",
}
"""Labels of settings whose key is not a label by itself."""


def name_of(key: str) -> str:
    """The label of a setting."""
    return NAMES.get(key, str(key).replace("_", " "))


READ_AS: dict[str, Callable[[Any], str]] = {"image_shape": shape, "seconds": duration}


def groups(settings: Mapping[str, Any], title: str = "") -> list[tuple[str, list[tuple[str, str]]]]:
    """Nested settings as titled lists of (name, text).

    `{"a": 1, "b": {"c": 2}}` becomes a list with an empty title for `a` and a list with the title "b".
    """
    plain, nested = [], []
    for key, value in settings.items():
        name = name_of(key)
        if isinstance(value, Mapping):
            nested += groups(value, f"{title}, {name}" if title else name)
        else:
            plain.append((name, READ_AS.get(key, words)(value)))
    return [(title, plain), *nested]


# Plots and pictures. Nothing here needs a display.

# Okabe and Ito's blue and vermilion: distinguishable with any colour vision, and in gray print.
BLUE, ORANGE, INK, SOFT, FAINT = "#0072b2", "#d55e00", "#1a1a1a", "#6b6b6b", "#d9d9d9"

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "text.parse_math": False,  # a `$` is a dollar sign
    "svg.hashsalt": "keras_vit",  # equal numbers give an equal file
}

PICTURE_SIDE = 224  # a small picture is enlarged to about this many pixels, without blur
PICTURE_LIMIT = 512  # a large picture is reduced to this


def svg(draw: "Callable[[Figure], None]", width: float, height: float) -> str:
    """An SVG of width x height inches as a data URI, drawn by `draw` on a new figure."""
    return _data_uri("image/svg+xml", _drawn(draw, width, height, format="svg", metadata={"Date": None}))


def png(draw: "Callable[[Figure], None]", width: float, height: float) -> bytes:
    """A PNG of width x height inches, 100 pixels per inch, drawn by `draw` on a new figure."""
    return _drawn(draw, width, height, format="png", dpi=100, metadata={"Software": None})


def _drawn(draw: "Callable[[Figure], None]", width: float, height: float, **options: Any) -> bytes:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        file = io.BytesIO()
        figure.savefig(file, **options)
    return file.getvalue()


def title_above_legend(axes: "Axes", title: str, columns: int) -> None:
    """Sets the title, and puts the legend in a row between it and the plot, where it covers nothing."""
    axes.set_title(title, pad=24)
    axes.legend(
        ncols=columns,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        frameon=False,
        fontsize=9,
        borderpad=0,
        handlelength=1.6,
        columnspacing=1.2,
    )


def horizontal_lines(axes: "Axes") -> None:
    """Faint grid lines at the ticks of the y axis."""
    axes.grid(axis="y", color=FAINT, linewidth=0.6)


def picture(pixels: np.ndarray) -> str:
    """A PNG as a data URI. A small picture is enlarged without blur, a large one is reduced.

    Args:
        pixels: uint8 (height, width, channels), with 1 or 3 channels.

    Raises:
        ValueError: The pixels have another shape or dtype.
    """
    from PIL import Image

    pixels = np.asarray(pixels)
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise ValueError(
            "a picture must be uint8 pixels (height, width, channels) with 1 or 3 channels. "
            f"Received: shape {pixels.shape}, dtype {pixels.dtype}"
        )
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    longest = max(image.size)
    if longest > PICTURE_LIMIT:
        image.thumbnail((PICTURE_LIMIT, PICTURE_LIMIT), Image.Resampling.LANCZOS)
    elif longest < PICTURE_SIDE:
        times = -(-PICTURE_SIDE // longest)
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return _data_uri("image/png", file.getvalue())


def paletted(pixels: np.ndarray) -> str:
    """A PNG of at most 128 colours as a data URI, a third of the size of `picture`.

    Args:
        pixels: uint8 (height, width, 3).
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).quantize(128, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return _data_uri("image/png", file.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
