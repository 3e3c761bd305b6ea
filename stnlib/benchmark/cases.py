"""What is computed: sizes, directions, the arrays, the bytes that must move, and the answer in float64."""

from __future__ import annotations

import functools
import math
import re
from typing import Any, NamedTuple

import numpy as np

from .. import sampling
from . import DIRECTIONS, SIZES

ANGLE, SCALE = math.radians(20), 0.8

CHECKED_VALUES = 1 << 23
"""How many values the float64 answer is computed for; in a larger batch, for some images only."""


class Size(NamedTuple):
    """The size of a batch: images ``(n, c, *input)`` become ``(n, c, *output)``."""

    n: int
    c: int
    input: tuple[int, int]
    output: tuple[int, int]


def parse_size(text: str) -> Size:
    """Return a size from its name, or from what it is.

    Parameters
    ----------
    text : str
        A name of `SIZES`, or ``NxCxHxW`` with, if the output's size differs, ``:HxW``.

    Returns
    -------
    Size

    Raises
    ------
    ValueError
        If it is neither.

    Examples
    --------
    >>> parse_size("a")
    Size(n=64, c=1, input=(60, 60), output=(30, 30))
    """
    named = {name: size for sizes in SIZES.values() for name, size in sizes.items()}
    found = re.fullmatch(r"(\d+)x(\d+)x(\d+)x(\d+)(?::(\d+)x(\d+))?", named.get(text, text))
    numbers = [int(number) for number in found.groups() if number] if found else [0]
    if 0 in numbers:
        raise ValueError(
            f"{text!r}: expected {', '.join(named)}, or NxCxHxW such as 8x3x512x512, or with the "
            "output's size after it, 64x1x60x60:30x30"
        )
    n, c, *sides = numbers
    return Size(n, c, (sides[0], sides[1]), (sides[-2], sides[-1]))


class Arrays(NamedTuple):
    """The arguments, float32: of one library, on one device."""

    image: Any
    theta: Any
    grid: Any
    grad: Any


class Case:
    """A size on a device, and its arrays, made once for each library.

    White noise between 0 and 1, rotated by 20° and scaled by 0.8 about its centre: a few corners of the output are
    outside the image.

    Parameters
    ----------
    name : str
        As for `parse_size`.
    device : {"cpu", "cuda"}, default "cpu"
        Where PyTorch's tensors and what `arrays` holds lie.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        self.name, self.size, self.device = name, parse_size(name), device

    @functools.cached_property
    def numpy(self) -> Arrays:
        """The arguments as NumPy arrays."""
        n, c, source, target = self.size
        rng = np.random.default_rng(0)
        cos, sin = SCALE * math.cos(ANGLE), SCALE * math.sin(ANGLE)
        theta = np.array([[[cos, -sin, 0.0], [sin, cos, 0.0]]] * n, dtype=np.float32)
        return Arrays(
            rng.random((n, c, *source), dtype=np.float32),
            theta,
            sampling.affine_grid(theta, target),
            rng.standard_normal((n, c, *target), dtype=np.float32),
        )

    @functools.cached_property
    def torch(self) -> Arrays:
        """The arguments as PyTorch tensors."""
        import torch

        return Arrays(*(torch.from_numpy(array).to(self.device) for array in self.numpy))

    @functools.cached_property
    def arrays(self) -> Arrays:
        """The arguments as the device's arrays: NumPy's, or CuPy's on a GPU."""
        if self.device == "cpu":
            return self.numpy
        import cupy

        return Arrays(*(cupy.asarray(array) for array in self.numpy))

    @functools.cached_property
    def checked(self) -> list[int]:
        """The images whose results are compared with the float64 answer, spread over the batch."""
        n, c, *sides = self.size
        count = min(n, max(2, CHECKED_VALUES // (c * max(map(math.prod, sides)))))
        return sorted({round(i) for i in np.linspace(0, n - 1, count)})

    def answer(self, direction: str) -> dict[str, np.ndarray]:
        """Return what is right, in float64, by the names in `DIRECTIONS`; of the images that are `checked`."""
        found = self._from_the_grid if direction == "grid" else self._from_theta
        return {name: found[name] for name in DIRECTIONS[direction]}

    @functools.cached_property
    def _in_float64(self) -> Arrays:
        return Arrays(*(array[self.checked].astype(np.float64) for array in self.numpy))

    @functools.cached_property
    def _from_the_grid(self) -> dict[str, np.ndarray]:
        image, _, grid, _ = self._in_float64
        return {"output": sampling.grid_sample(image, grid, engine="reference")}

    @functools.cached_property
    def _from_theta(self) -> dict[str, np.ndarray]:
        image, theta, _, grad = self._in_float64
        output = sampling.affine_sample(image, theta, self.size.output, engine="reference")
        grads = sampling.affine_sample_vjp(
            grad, image, theta, needs=(True, True, False), engine="reference"
        )
        return {"output": output, "grad_input": grads.input, "grad_theta": grads.theta}


def bytes_moved(size: Size, direction: str) -> int:
    """Return how many bytes a direction must move: what it is given, read once, and what it returns, written once.

    Parameters
    ----------
    size : Size
    direction : str
        Forward: the images and the output. Backward: the output's gradient and the images, read, and the images'
        gradient. A grid that is handed in is read. Theta is too small to count.

    Returns
    -------
    int

    Examples
    --------
    >>> [bytes_moved(parse_size("1x1x10x10"), way) for way in ("forward", "backward", "grid")]
    [800, 1200, 1600]
    """
    source, target = (size.n * size.c * math.prod(side) for side in (size.input, size.output))
    values = {
        "forward": source + target,
        "backward": 2 * source + target,
        "forward+backward": 3 * source + 2 * target,
        "grid": source + target + 2 * size.n * math.prod(size.output),
    }
    return 4 * values[direction]


def errors(found: list[Any], case: Case, direction: str) -> dict[str, float]:
    """Return how far results are from the answer in float64, at most.

    Parameters
    ----------
    found : list of NumPy or CuPy arrays or tensors
        Of the whole batch, in the order of `DIRECTIONS`.
    case : Case
    direction : str

    Returns
    -------
    dict
        The largest difference: of the output in units of the image's range, which is 1; of a gradient in units of its
        largest value. Infinity for a result of the wrong shape or with a value that is no number.
    """
    largest = {}
    for (name, right), array in zip(case.answer(direction).items(), found, strict=True):
        part = array[case.checked]
        part = part.cpu().numpy() if hasattr(part, "cpu") else part
        part = np.asarray(part.get() if hasattr(part, "get") else part, dtype=np.float64)
        error = math.inf
        if part.shape == right.shape:
            unit = 1.0 if name == "output" else np.abs(right).max()
            error = float(np.abs(part - right).max() / unit)
        largest[name] = error if math.isfinite(error) else math.inf
    return largest
