"""The grid generator and the sampler for PyTorch's autograd, with the gradients that chapter 3 derives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import sampling


class _AffineGrid(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, theta: torch.Tensor, size: Sequence[int], align_corners: bool
    ) -> torch.Tensor:
        ctx.align_corners = align_corners
        return sampling.affine_grid(theta, size, align_corners=align_corners)

    @staticmethod
    def backward(ctx: Any, grad_grid: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return sampling.affine_grid_vjp(grad_grid, align_corners=ctx.align_corners), None, None


class _GridSample(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: torch.Tensor, grid: torch.Tensor, options: dict[str, Any]
    ) -> torch.Tensor:
        ctx.save_for_backward(input, grid)
        ctx.options = options
        return sampling.grid_sample(input, grid, **options)

    @staticmethod
    def backward(
        ctx: Any, grad_output: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        input, grid = ctx.saved_tensors
        needs_input, needs_grid, _ = ctx.needs_input_grad
        grad_input, grad_grid = sampling.grid_sample_vjp(
            grad_output, input, grid, **ctx.options, needs=(needs_input, needs_grid)
        )
        return grad_input, grad_grid, None


def affine_grid(
    theta: torch.Tensor, size: Sequence[int], *, align_corners: bool = False
) -> torch.Tensor:
    """Generate the sampling grid of an affine transform, differentiable in theta: see `stnlib.affine_grid`.

    Parameters
    ----------
    theta : tensor of float32 or float64, shape (N, 2, 3)
    size : (N, C, H, W) or (H, W)
        Size of the output, in pixels.
    align_corners : bool, default False

    Returns
    -------
    tensor of theta's dtype, shape (N, H, W, 2)

    Raises
    ------
    TypeError, ValueError
        As `stnlib.affine_grid`.

    Notes
    -----
    Equation (1) of Jaderberg et al. (2015); gradient derived in chapter 3.

    Examples
    --------
    >>> theta = torch.zeros(1, 2, 3, requires_grad=True)
    >>> affine_grid(theta, (2, 2)).sum().backward()
    >>> theta.grad
    tensor([[[0., 0., 4.],
             [0., 0., 4.]]])
    """
    _require_tensors(theta=theta)
    return _AffineGrid.apply(theta, size, align_corners)


def grid_sample(
    input: torch.Tensor,
    grid: torch.Tensor,
    *,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> torch.Tensor:
    """Sample images at the positions of a grid, differentiable in both: see `stnlib.grid_sample`.

    Parameters
    ----------
    input : tensor of float32 or float64, shape (N, C, H, W)
    grid : tensor of float32 or float64, shape (N, H_out, W_out, 2)
        Normalised coordinates (x, y). A float64 grid may go with float32 images, and keeps its precision.
    mode : {"bilinear", "nearest"}, default "bilinear"
    padding_mode : {"zeros", "border", "reflection"}, default "zeros"
    align_corners : bool, default False

    Returns
    -------
    tensor of input's dtype, shape (N, C, H_out, W_out)

    Raises
    ------
    TypeError, ValueError
        As `stnlib.grid_sample`.

    Notes
    -----
    Equations (3) to (7) of Jaderberg et al. (2015); derived in chapters 2 and 3.

    Examples
    --------
    >>> image = torch.arange(4.0).reshape(1, 1, 2, 2)
    >>> grid_sample(image, torch.zeros(1, 1, 1, 2))
    tensor([[[[1.5000]]]])
    """
    _require_tensors(input=input, grid=grid)
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    return _GridSample.apply(input, grid, options)


def _require_tensors(**arguments: Any) -> None:
    for name, value in arguments.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(
                f"{name}: expected a PyTorch tensor, got {type(value).__name__}; stnlib's function takes arrays"
            )
