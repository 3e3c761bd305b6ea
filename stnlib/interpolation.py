"""Sampling kernels, their derivatives, and the rules that say what lies beyond the border (chapters 2 and 3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from ._arrays import Array


class Kernel(Protocol):
    """A sampling kernel k along one axis, as the paper's equation (3) uses it; the two below are examples."""

    taps: int

    def first(self, x: Array, xp: Any) -> Array: ...  # noqa: D102
    def value(self, d: Array, xp: Any) -> Array: ...  # noqa: D102
    def derivative(self, d: Array, xp: Any) -> Array: ...  # noqa: D102


class Nearest:
    """The nearest-pixel kernel, equation (4) of the paper: 1 at the nearest pixel, 0 elsewhere.

    A position halfway between two pixels goes to the even one, as in PyTorch.
    """

    taps = 1

    def first(self, x: Array, xp: Any) -> Array:
        """Return the first pixel of the kernel's support about position ``x`` (in pixels)."""
        return xp.round(x)

    def value(self, d: Array, xp: Any) -> Array:
        """Return k(d), with d = x - m the distance from the pixel m to the position x, in pixels."""
        return xp.ones_like(d)

    def derivative(self, d: Array, xp: Any) -> Array:
        """Return k'(d): 0, so that nothing is learnt through this kernel's coordinates."""
        return xp.zeros_like(d)


class Bilinear:
    """The linear kernel along one axis, equation (5) of the paper: k(d) = max(0, 1 - abs(d))."""

    taps = 2

    def first(self, x: Array, xp: Any) -> Array:
        """Return the first pixel of the kernel's support about position ``x`` (in pixels)."""
        return xp.floor(x)

    def value(self, d: Array, xp: Any) -> Array:
        """Return k(d), with d = x - m the distance from the pixel m to the position x, in pixels."""
        return xp.where(d < 0, 1 + d, 1 - d)

    def derivative(self, d: Array, xp: Any) -> Array:
        """Return k'(d): +1 before the peak, -1 from it on. At the knot d = 0 it is the derivative from the right."""
        return xp.where(d < 0, xp.ones_like(d), -xp.ones_like(d))


KERNELS: dict[str, Kernel] = {"nearest": Nearest(), "bilinear": Bilinear()}
PADDING_MODES = ("zeros", "border", "reflection")


class Tap(NamedTuple):
    """One pixel that a sample reads along one axis, for every sample at once."""

    index: Array  # which pixel of the image, 0 to size - 1
    inside: (
        Array | None
    )  # False where the padding is zero and the pixel does not exist; None where all exist
    weight: Array  # k(x - m)
    slope: Array  # k'(x - m), the weight's derivative with respect to x


def taps(
    x: Array, size: int, *, mode: str, padding_mode: str, align_corners: bool, xp: Any
) -> Iterator[Tap]:
    """Yield the pixels that samples at ``x`` read along one axis, and their weights.

    Weights are computed from the position before any index is clipped, reflected or dropped: the padding says which
    value stands at a pixel outside the image, and never moves the sample.

    Parameters
    ----------
    x : array of float64, any shape
        Positions along the axis, in pixels.
    size : int
        Number of pixels along the axis.
    mode : {"bilinear", "nearest"}
    padding_mode : {"zeros", "border", "reflection"}
    align_corners : bool
        Where reflection's mirrors stand: at the corner pixels' centres (True) or at their outer edges (False).
    xp : namespace

    Yields
    ------
    Tap
        Arrays of the shape of ``x``. At a NaN position the weight and the slope are NaN.
    """
    kernel = KERNELS[mode]
    x = _tame_infinity(x, size, padding_mode, align_corners, xp)
    unknown = xp.isnan(x)
    first = kernel.first(x, xp)
    for offset in range(kernel.taps):
        m = first + offset
        index, inside = _extend(
            xp.where(unknown, 0.0, m), size, padding_mode, align_corners, xp
        )
        weight = xp.where(unknown, x, kernel.value(x - m, xp))
        slope = xp.where(unknown, x, kernel.derivative(x - m, xp))
        yield Tap(xp.astype(index, xp.int64), inside, weight, slope)


def _tame_infinity(
    x: Array, size: int, padding_mode: str, align_corners: bool, xp: Any
) -> Array:
    """Return positions that are finite or NaN, and read the same."""
    if padding_mode == "reflection":
        x = xp.where(xp.isfinite(x), x, xp.nan)  # infinity has no mirror image
        # From 2**52 pixels out, whole numbers lie no closer than 1 apart, and x + 1 may be x: come nearer by periods.
        return xp.where(xp.abs(x) < 2.0**52, x, xp.remainder(x, _period(size, align_corners)))
    return xp.clip(x, -2.0, size + 1.0)  # from two pixels out, nothing changes any more


def _extend(
    m: Array, size: int, padding_mode: str, align_corners: bool, xp: Any
) -> tuple[Array, Array | None]:
    """Return which pixel of the image stands at the whole number ``m`` on the endless axis, and whether one does."""
    if padding_mode == "zeros":
        return xp.clip(m, 0, size - 1), (m >= 0) & (m < size)
    if padding_mode == "border":
        return xp.clip(m, 0, size - 1), None
    # Reflection repeats after a period. A mirror at a pixel's edge shows this pixel twice.
    period = _period(size, align_corners)
    m = xp.remainder(m, period)
    turned = period - m if align_corners else period - 1 - m
    return xp.where(m < size, m, turned), None


def _period(size: int, align_corners: bool) -> int:
    """Return after how many pixels a reflected image repeats: once there and back."""
    return max(2 * (size - 1 if align_corners else size), 1)
