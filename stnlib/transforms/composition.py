"""Several families, one after the other (chapter 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .._arrays import Array, to_float64
from .families import Family, require_family


class Composition(Family):
    """The family of the transforms of several families, one after the other, the last argument first.

    Parameters
    ----------
    *families : Family
        At least one, all of the plane or all of space.

    Raises
    ------
    TypeError, ValueError
        If there is none, an argument is not a family, or they do not fit each other.

    Notes
    -----
    theta holds the parameters of one family after another, as they are written. As with `stnlib.transforms.compose`,
    ``Composition(a, b)`` moves a point by b, then by a.

    Examples
    --------
    >>> from stnlib.transforms import Similarity, ThinPlateSpline
    >>> family = Composition(Similarity(), ThinPlateSpline(3, 3))  # bend, then turn
    >>> family.num_parameters
    22
    """

    def __init__(self, *families: Family) -> None:
        if not families:
            raise ValueError("families: expected at least one family, got none")
        for i, family in enumerate(families):
            require_family(family, f"families[{i}]")
            if not isinstance(family, Family) or hasattr(family, "state_dict"):
                raise TypeError(
                    f"families[{i}]: expected a Family that moves any point, got {family!r}"
                )
        dimensions = {family.dimensions for family in families}
        if len(dimensions) > 1:
            raise ValueError(
                "families: expected all of the plane or all of space, got some of each"
            )
        self.families = families
        (self.dimensions,) = dimensions
        self.num_parameters = sum(family.num_parameters for family in families)

    def identity(self) -> Array:
        """Return the families' identities, one after another: a NumPy array, shape (P,)."""
        return np.concatenate([family.identity() for family in self.families])

    def split(self, theta: Array) -> list[Array]:
        """Return each family's parameters, of parameters of shape (N, P).

        Raises
        ------
        TypeError, ValueError
            If theta is not such an array.
        """
        self.check(theta)
        parts, start = [], 0
        for family in self.families:
            parts.append(theta[:, start : start + family.num_parameters])
            start += family.num_parameters
        return parts

    def apply(self, theta: Array, points: Array) -> Array:
        """Move points by the last family, then by the one before it, and so on: see `Family.apply`."""
        self.check(theta, points)
        for family, part in reversed(list(zip(self.families, self.split(theta), strict=True))):
            points = family.apply(part, points)
        return points

    def grid(self, theta: Array, size: Sequence[int], *, align_corners: bool = False) -> Array:
        """Generate the sampling grid: see `Family.grid`."""
        xp, size = self.check_grid(theta, size)
        *parts, last = self.split(to_float64(theta, xp))
        grid = self.families[-1].grid(last, size, align_corners=align_corners)
        points = xp.reshape(grid, (theta.shape[0], math.prod(size), self.dimensions))
        for family, part in reversed(list(zip(self.families[:-1], parts, strict=True))):
            points = family.apply(part, points)
        return xp.astype(xp.reshape(points, grid.shape), theta.dtype, copy=False)

    def __repr__(self) -> str:
        return f"Composition({', '.join(map(repr, self.families))})"
