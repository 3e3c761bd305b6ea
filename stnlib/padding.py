"""Padding: which value stands at a pixel that lies beyond the image (chapter 2).

A rule turns a whole number m on the endless axis into one of the image's pixels, or says that there is none. It never
moves a sample: weights are computed first, from the position alone.
"""

from __future__ import annotations

from typing import Any

from ._arrays import Array

PADDING_MODES = ("zeros", "border", "reflection", "wrap", "mirror", "fill")


def extend(
    m: Array, size: int, padding_mode: str, align_corners: bool, xp: Any
) -> tuple[Array, Array | None]:
    """Return which pixel of the image stands at the whole number ``m`` on the endless axis, and whether one does.

    Parameters
    ----------
    m : array of whole numbers, any shape
    size : int
        Number of pixels along the axis.
    padding_mode : {"zeros", "border", "reflection", "wrap", "mirror", "fill"}
    align_corners : bool
        Where the mirrors of ``"reflection"`` stand: at the corner pixels' centres (True) or outer edges (False).
    xp : namespace

    Returns
    -------
    index : array of the same shape
        A pixel, 0 to ``size - 1``.
    inside : array of bool, or None
        False where no pixel stands at m, and a value from outside counts instead; None where one always stands.

    Examples
    --------
    >>> import numpy as np
    >>> extend(np.arange(-3, 7), 4, "mirror", False, np)[0]
    array([3, 2, 1, 0, 1, 2, 3, 2, 1, 0])
    """
    if padding_mode in ("zeros", "fill"):
        return xp.clip(m, 0, size - 1), (m >= 0) & (m < size)
    if padding_mode == "border":
        return xp.clip(m, 0, size - 1), None
    repeat = period(size, padding_mode, align_corners)
    m = xp.remainder(m, repeat)
    # On the way back. A mirror at a pixel's edge shows this pixel twice; a mirror at its centre, once.
    turned = repeat - 1 - m if repeat == 2 * size else repeat - m
    return xp.where(m < size, m, turned), None


def period(size: int, padding_mode: str, align_corners: bool) -> int:
    """Return after how many pixels the padded image repeats: its width, or once there and back."""
    if padding_mode == "wrap":
        return size
    if padding_mode == "reflection" and not align_corners:
        return 2 * size
    return max(2 * (size - 1), 1)


def tame(x: Array, size: int, padding_mode: str, align_corners: bool, xp: Any) -> Array:
    """Return positions, in pixels, that are finite or NaN and read the same.

    From 2**52 pixels out, whole numbers lie no closer than 1 apart, and x + 1 may be x.
    """
    if padding_mode in ("zeros", "fill", "border"):
        return xp.clip(x, -(2.0**52), 2.0**52)
    x = xp.where(xp.isfinite(x), x, xp.nan)  # infinity has no mirror image
    return xp.where(
        xp.abs(x) < 2.0**52, x, xp.remainder(x, period(size, padding_mode, align_corners))
    )
