"""The paper's general form, T = M B, with B learned too (chapter 6)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from .._arrays import require_size
from ..coordinates import regular_grid
from ..transforms import Basis
from ..transforms.families import Family


class LearnedBasis(nn.Module, Family):  # type: ignore[misc]  # its apply is the module's
    """A family of transforms whose basis is a parameter of the network: the same for every image, and learned.

    Parameters
    ----------
    start : stnlib.transforms.Basis
        The family whose basis training starts from, for instance ``ThinPlateSpline(4, 4)``.
    size : (H, W)
        Size of the output, in pixels. There is a row of the basis for each pixel, and so no other size.
    align_corners : bool, default False
        Where the output's pixels lie at the start.

    Raises
    ------
    TypeError
        If start has no basis.
    ValueError
        If size is not such a size.

    Notes
    -----
    Section 3.2 of Jaderberg et al. (2015): "T_θ = M_θ B … it is possible to learn B". Hand it to `SpatialTransformer`
    as its transform. Derived in chapter 6.

    Examples
    --------
    >>> from stnlib.transforms import ThinPlateSpline
    >>> family = LearnedBasis(ThinPlateSpline(3, 3), (14, 14))
    >>> family.B.shape, family.num_parameters
    (torch.Size([9, 196]), 18)
    """

    def __init__(
        self, start: Basis, size: Sequence[int], *, align_corners: bool = False
    ) -> None:
        super().__init__()
        if not isinstance(start, Basis):
            raise TypeError(
                f"start: expected a family with a basis such as ThinPlateSpline(4, 4), got {start!r}"
            )
        self.start, self.size = start, require_size(size, "size", start.dimensions)
        self.dimensions, self.num_parameters = start.dimensions, start.num_parameters
        points = regular_grid(self.size, align_corners=align_corners)
        basis = start.basis(points.reshape(-1, self.dimensions))
        self.B = nn.Parameter(
            torch.as_tensor(np.asarray(basis).T, dtype=torch.get_default_dtype())
        )

    def identity(self) -> np.ndarray:
        """Return the control points where they are: a NumPy array, shape (P,)."""
        return self.start.identity()

    def grid(
        self, theta: torch.Tensor, size: Sequence[int], *, align_corners: bool = False
    ) -> torch.Tensor:
        """Generate the sampling grid: see `stnlib.transforms.Family.grid`. The basis says where pixels lie.

        Raises
        ------
        TypeError, ValueError
            If theta is not such a tensor, or size is not the basis's.
        """
        _, size = self.check_grid(theta, size)
        if size != self.size:
            raise ValueError(
                f"size: expected {self.size}, as the basis was made for, got {size}"
            )
        moved = theta.reshape(len(theta), len(self.B), self.dimensions)
        return (self.B.to(theta.dtype).T @ moved).reshape(len(theta), *size, self.dimensions)

    def extra_repr(self) -> str:
        """Say what the module's line in a printed network shows."""
        return f"start={self.start}, size={self.size}"
