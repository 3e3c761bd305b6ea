"""What the commands share: options that are checked as they are read, and errors that are one sentence."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .._extras import require
from ..benchmark import DEVICES

try:
    click: Any = require("click", "cli", "the command stnlib")
    require("rich", "cli", "the command stnlib")
except ModuleNotFoundError as missing:
    sys.exit(f"Error: {missing}")

# As stnlib.nn.models, stnlib.experiments.table1 and stnlib.training.schedule name them, without PyTorch, whose import
# takes longer than a page of help should.
MODELS = ("fcn", "cnn", "st-fcn", "st-cnn")
TRANSFORMS = ("affine", "projective", "tps")
DATA = ("R", "RTS", "P", "E", "TC")
OPTIMISERS = ("adamw", "sgd")
DECAYS = ("cosine", "steps")


class Choice(click.Choice):
    """One of a few names, in capitals or not; for a wrong one, the nearest is suggested."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the name that is meant."""
        names = {name.lower(): name for name in self.choices}
        try:
            return super().convert(names.get(value.lower(), value), param, ctx)
        except click.BadParameter as error:
            near = get_close_matches(value.lower(), names, n=2, cutoff=0.5)
            if near:
                nearest = max(near, key=lambda name: name.startswith(value.lower()))
                error.message += f" Did you mean {names[nearest]!r}?"
            raise


def file(context: Any, option: Any, value: Path | None) -> Path | None:
    """Say before the work begins that its result could not be written."""
    if value is not None and not value.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {value.parent}.", context, option)
    if value is not None and option.name == "chart":
        try:
            require("matplotlib", "plot", "--chart")
        except ModuleNotFoundError as error:
            raise click.BadParameter(f"{error}.", context, option) from None
    return value


def seconds(context: Any, option: Any, value: str | None) -> float | None:
    """Read a time such as 90s, 10m or 2h."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", value)
    if found is None or float(found[1]) == 0:
        raise click.BadParameter(
            f"expected a time such as 90s, 10m or 2h, got {value!r}.", context, option
        )
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


PATH: dict[str, Any] = {"type": click.Path(dir_okay=False, path_type=Path), "callback": file}
WHOLE = click.IntRange(min=1)

device = click.option(
    "--device", type=Choice(DEVICES), default="cpu", show_default=True, help="What computes."
)
threads = click.option(
    "--threads",
    type=WHOLE,
    default=1,
    show_default=True,
    help="Of PyTorch; weights repeat bit for bit on one number.",
)


def typed() -> str:
    """Return the command as it was typed."""
    return f"stnlib {shlex.join(sys.argv[1:])}"


def require_device(name: str) -> None:
    """Raise unless PyTorch finds what is asked for."""
    torch = require("torch", "train", "the command stnlib")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "--device cuda: PyTorch finds no GPU on this machine; leave the option out to use the CPU"
        )


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn the errors that a user can do something about into one sentence."""
    try:
        yield
    except (ImportError, FloatingPointError, OSError, RuntimeError, ValueError) as error:
        raise click.ClickException(f"{_sentence(error)}.") from error


def _sentence(error: Exception) -> str:
    """Return what an error says, in a line."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
