"""The grid generator and the sampler for PyTorch, differentiable in every way that PyTorch knows (chapters 3 and 5).

What the reference computes with plain array code (the grid, pixel coordinates, prefilter, footprints) PyTorch
differentiates by itself. The two operations at its heart, gather and scatter, bring their derivatives along: the rules
of `stnlib.gather_scatter`, with the sub-gradients that chapter 3 chooses at the kinks. In eager mode they are autograd
functions; a compiled graph gets them as operators, ``torch.ops.stnlib.gather`` and ``scatter``, with the same rules.

Where an engine covers a case, one autograd function does all of it in a pass, forward and backward. Its second
derivatives are the reference's, as is everything under forward mode and ``torch.func``'s transforms.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import array_api_compat.torch as xp
import torch
from torch import Tensor
from torch._C._functorch import TransformType
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters

from .. import engines, gather_scatter, sampling
from ..gather_scatter import Sampler, position_gradient
from ..interpolation import KERNELS
from ..options import Options, check_affine_arrays, check_arrays, resolve
from . import operators

Orders = gather_scatter.Orders


class _Gather(torch.autograd.Function):
    """`gather_scatter.gather` with its derivatives; saved are only its arguments."""

    @staticmethod
    def forward(
        input: Tensor, fill: Tensor, position: Tensor, orders: Orders, sampler: Sampler
    ) -> Tensor:
        return gather_scatter.gather(input, fill, position, orders, sampler, xp)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.orders, ctx.sampler = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, fill, position = ctx.saved_tensors
        gather, scatter = _eager(ctx.sampler)
        grads: list[Tensor | None] = [None, None, None]
        if any(ctx.needs_input_grad[:2]):
            pixels, grads[1] = scatter(grad, position, ctx.orders, input.shape[2:])
            grads[0] = pixels.to(input.dtype)
        if ctx.needs_input_grad[2]:
            grads[2] = position_gradient(grad, input, fill, position, ctx.orders, gather, xp)
        return (*grads, None, None)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        gather, _ = _eager(ctx.sampler)
        moves = _or_zeros(tangents, ctx.saved_tensors)
        arguments = (*moves, *ctx.saved_tensors, ctx.orders, gather, xp)
        return gather_scatter.gather_jvp(*arguments)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Tensor, int]:
        folded = operators.fold(info.batch_size, in_dims, inputs[:3], (0, 0, 0))
        values = _Gather.apply(*folded, *inputs[3:])
        return values.unflatten(1, (info.batch_size, -1)), 1


class _Scatter(torch.autograd.Function):
    """`gather_scatter.scatter` with its derivatives."""

    @staticmethod
    def forward(
        values: Tensor, position: Tensor, orders: Orders, size: Sequence[int], sampler: Sampler
    ) -> tuple[Tensor, Tensor]:
        return gather_scatter.scatter(values, position, orders, sampler, size, xp)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *tensors, ctx.orders, ctx.size, ctx.sampler = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad_pixels: Tensor, grad_fill: Tensor) -> tuple[Tensor | None, ...]:
        gather, _ = _eager(ctx.sampler)
        arguments = (grad_pixels, grad_fill, *ctx.saved_tensors, ctx.orders, gather, xp)
        return (*gather_scatter.scatter_vjp(*arguments), None, None, None)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, Tensor]:
        _, scatter = _eager(ctx.sampler)
        moves = _or_zeros(tangents, ctx.saved_tensors)
        arguments = (*moves, *ctx.saved_tensors, ctx.orders, ctx.size, scatter, xp)
        return gather_scatter.scatter_jvp(*arguments)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Any, tuple[int, int]]:
        folded = operators.fold(info.batch_size, in_dims, inputs[:2], (1, 0))
        outputs = _Scatter.apply(*folded, *inputs[2:])
        return tuple(t.unflatten(0, (info.batch_size, -1)) for t in outputs), (0, 0)


def _or_zeros(tangents: Sequence[Any], saved: Sequence[Tensor]) -> list[Tensor]:
    """Return the tangents of the saved tensors; one that stands still comes as None."""
    return [
        torch.zeros_like(tensor) if tangent is None else tangent
        for tangent, tensor in zip(tangents, saved, strict=False)
    ]


def _eager(sampler: Sampler) -> tuple[Any, Any]:
    """Return gather and scatter as differentiable functions, the sampler given."""

    def gather(input: Tensor, fill: Tensor, position: Tensor, orders: Orders) -> Tensor:
        return _Gather.apply(input, fill, position, tuple(orders), sampler)

    def scatter(
        values: Tensor, position: Tensor, orders: Orders, size: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        return _Scatter.apply(values, position, tuple(orders), tuple(size), sampler)

    return gather, scatter


class _Sample(torch.autograd.Function):
    """An engine's sampler, from a grid or, with a size, from theta."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        coordinates: Tensor,
        fill: Tensor | None,
        size: Sequence[int] | None,
        options: Options,
        engine: engines.Engine,
    ) -> Tensor:
        ctx.save_for_backward(input, coordinates, fill)
        ctx.rest = size, options, engine
        ctx.deterministic = engines.is_deterministic(input)
        return engine.sample(input, coordinates, size, fill, options)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with engines.deterministic(ctx.deterministic):  # this may be another thread
            return _Sample._backward(ctx, grad)

    @staticmethod
    def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needs = tuple(ctx.needs_input_grad[:3])
        input, coordinates, fill = ctx.saved_tensors
        size, options, engine = ctx.rest
        if engines.is_plain(grad) and not torch.is_grad_enabled():
            grads = engine.sample_vjp(grad, input, coordinates, size, fill, options, needs)
        elif engines.is_plain(grad, recorded=True):
            grads = _SampleGradients.apply(
                grad, input, coordinates, fill, size, options, engine, needs
            )
        else:
            grads = _reference_gradients(grad, input, coordinates, fill, size, options, needs)
        return (*grads, None, None, None)


class _SampleGradients(torch.autograd.Function):
    """The engine's vector-Jacobian product, itself differentiable by way of the reference."""

    @staticmethod
    def forward(
        ctx: Any,
        grad: Tensor,
        input: Tensor,
        coordinates: Tensor,
        fill: Tensor | None,
        size: Sequence[int] | None,
        options: Options,
        engine: engines.Engine,
        needs: Sequence[bool],
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(grad, input, coordinates, fill)
        ctx.rest = size, options, needs
        return engine.sample_vjp(grad, input, coordinates, size, fill, options, needs)

    @staticmethod
    def backward(ctx: Any, *moves: Tensor | None) -> tuple[Tensor | None, ...]:
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            tensors: Any = _apart(ctx.saved_tensors)
            wanted = [t for t in tensors if t is not None and t.requires_grad]
            grads = _reference_gradients(*tensors, *ctx.rest)
            pairs = [
                (g, m)
                for g, m in zip(grads, moves, strict=True)
                if g is not None and m is not None and g.requires_grad
            ]
            seconds = torch.autograd.grad(
                [g for g, _ in pairs],
                wanted,
                [m for _, m in pairs],
                create_graph=again,
                allow_unused=True,
            )
        found = iter(seconds)
        result = [next(found) if t is not None and t.requires_grad else None for t in tensors]
        return (*result, None, None, None, None)


def _apart(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return the same tensors, each a variable of its own: what one owes to another is the outer graph's to follow."""
    return [None if t is None else t.view_as(t) for t in tensors]


def _reference_gradients(
    grad: Tensor,
    input: Tensor,
    coordinates: Tensor,
    fill: Tensor | None,
    size: Sequence[int] | None,
    options: Options,
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """Return the gradients of input, coordinates and fill, themselves differentiable."""
    with torch.enable_grad():
        apart: Any = _apart((input, coordinates, fill))
        tensors = [
            t.detach().requires_grad_() if need and not t.requires_grad else t
            for t, need in zip(apart, needs, strict=True)
        ]
        gather, _ = _eager(options.sampler)
        input, coordinates, fill = tensors
        output = _read(input, coordinates, fill, size, options, gather)
        wanted = [t for t, need in zip(tensors, needs, strict=True) if need]
        found = iter(torch.autograd.grad(output, wanted, grad, create_graph=True))
    return [next(found) if need else None for need in needs]


def _read(
    input: Tensor,
    coordinates: Tensor,
    fill: Tensor | None,
    size: Sequence[int] | None,
    options: Options,
    gather: Any,
) -> Tensor:
    """Sample by the reference, from a grid or, with a size, from theta."""
    if size is not None:
        coordinates = sampling.affine_positions(input, coordinates, size, options, xp)
        options = options._replace(coordinates="pixel")
    return sampling.read(input, coordinates, options, gather, xp, fill)


def _sample(
    input: Tensor,
    coordinates: Tensor,
    size: Sequence[int] | None,
    options: Options,
    engine: str | None,
) -> Tensor:
    """Sample by the engine that fits or by the reference, from a grid or, with a size, from theta."""
    fill = sampling.fill_or_none(input, options, xp)
    tensors = [t for t in (input, coordinates, fill) if t is not None]
    fast = engines.pick(engine, options, *tensors, recorded=True)
    if fast is not None:
        if not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
            return fast.sample(input, coordinates, size, fill, options)
        return _Sample.apply(input, coordinates, fill, size, options, fast)
    if torch.compiler.is_compiling():
        if options.antialias is True:
            raise ValueError(
                "antialias: under torch.compile expected the longest step in pixels, got True"
            )
        gather = functools.partial(operators.gather, sampler=options.sampler)
    else:
        _refuse_forward_over_forward()
        gather, _ = _eager(options.sampler)
    return _read(input, coordinates, fill, size, options, gather)


def affine_grid(
    theta: Tensor,
    size: Sequence[int],
    *,
    align_corners: bool = False,
    coordinates: str = "normalised",
) -> Tensor:
    """Generate the sampling grid of an affine transform, differentiable in theta: see `stnlib.affine_grid`.

    Parameters
    ----------
    theta : tensor of float32 or float64, shape (N, 2, 3) or (N, 3, 4)
    size : (N, C, H, W) or (H, W); (N, C, D, H, W) or (D, H, W)
        Size of the output, in pixels.
    align_corners : bool, default False
    coordinates : {"normalised", "pixel"}, default "normalised"

    Returns
    -------
    tensor of theta's dtype, shape (N, H, W, 2) or (N, D, H, W, 3)

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
    return sampling.affine_grid(
        theta, size, align_corners=align_corners, coordinates=coordinates
    )


def grid_sample(
    input: Tensor,
    grid: Tensor,
    *,
    mode: Any = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
    coordinates: str = "normalised",
    fill_value: float | Tensor = 0.0,
    antialias: bool | float = False,
    engine: str | None = None,
) -> Tensor:
    """Sample images at the positions of a grid, differentiable in images, grid and fill value.

    Backward and forward mode, and twice (but not forward over forward), under ``torch.func``'s transforms and
    ``torch.compile``. The options and what they mean are those of `stnlib.grid_sample`.

    Parameters
    ----------
    input : tensor of float32, float64, float16 or bfloat16, shape (N, C, H, W) or (N, C, D, H, W)
    grid : tensor of float32 or float64, shape (N, H_out, W_out, 2) or (N, D_out, H_out, W_out, 3)
        Coordinates (x, y) or (x, y, z). A float64 grid may go with float32 images, and keeps its precision.
    mode : str or stnlib.interpolation.Kernel, default "bilinear"
    padding_mode : {"zeros", "border", "reflection", "wrap", "mirror", "fill"}, default "zeros"
    align_corners : bool, default False
    coordinates : {"normalised", "pixel"}, default "normalised"
    fill_value : float or tensor of shape (C,), default 0.0
    antialias : bool or float, default False
        Under ``torch.compile`` and ``torch.vmap``, give the longest step, in pixels, in the place of True.
    engine : {"reference", "cpu", "cuda", "emulator"}, optional
        What computes the output and the gradients; by default, the fastest for such tensors. Second derivatives,
        forward mode, ``torch.func`` and compiled graphs are the reference's.

    Returns
    -------
    tensor of input's dtype, shape (N, C, H_out, W_out) or (N, C, D_out, H_out, W_out)

    Raises
    ------
    TypeError, ValueError
        As `stnlib.grid_sample`.
    NotImplementedError
        If a third derivative is asked for, or one that the kernel does not have.

    Notes
    -----
    Equations (3) to (7) of Jaderberg et al. (2015); derived in chapters 2 and 3. In an ONNX export it becomes
    ``GridSample``, and raises ``ValueError`` where ONNX has no such option.

    Examples
    --------
    >>> image = torch.arange(4.0).reshape(1, 1, 2, 2)
    >>> grid_sample(image, torch.zeros(1, 1, 1, 2))
    tensor([[[[1.5000]]]])
    """
    _require_tensors(input=input, grid=grid)
    options = resolve(mode, padding_mode, align_corners, coordinates, fill_value, antialias)
    check_arrays(input, grid)
    if _is_for_onnx():
        return _for_onnx(input, grid, options)
    return _sample(input, grid, None, options, engine)


def affine_sample(
    input: Tensor,
    theta: Tensor,
    size: Sequence[int],
    *,
    engine: str | None = None,
    **options: Any,
) -> Tensor:
    """Transform images by affine matrices, differentiable in images, theta and fill value.

    Parameters
    ----------
    input : tensor, shape (N, C, H, W) or (N, C, D, H, W)
    theta : tensor of float32 or float64, shape (N, 2, 3) or (N, 3, 4)
        Maps output coordinates to input coordinates.
    size : (H_out, W_out) or (D_out, H_out, W_out)
        Size of the output in pixels.
    engine, **options
        As for `grid_sample`.

    Returns
    -------
    tensor of input's dtype, shape (N, C, H_out, W_out) or (N, C, D_out, H_out, W_out)

    Raises
    ------
    TypeError, ValueError
        As `stnlib.affine_sample`.

    Notes
    -----
    Equations (1) and (3) of Jaderberg et al. (2015). Coordinates are in float64 from theta to the sampler.

    Examples
    --------
    >>> image = torch.arange(4.0).reshape(1, 1, 2, 2)
    >>> mirror = torch.tensor([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    >>> affine_sample(image, mirror, (2, 2))
    tensor([[[[1., 0.],
              [3., 2.]]]])
    """
    _require_tensors(input=input, theta=theta)
    chosen = resolve(**options)
    _, size = check_affine_arrays(input, theta, size)
    if _is_for_onnx():
        flags = {"align_corners": chosen.sampler.align_corners}
        grid = affine_grid(theta, size, coordinates=chosen.coordinates, **flags)
        return _for_onnx(input, grid, chosen)
    return _sample(input, theta, size, chosen, engine)


def _refuse_forward_over_forward() -> None:
    """Raise where one Jacobian-vector product is taken of another: PyTorch would return zeros in silence."""
    levels = retrieve_all_functorch_interpreters()
    if sum(level.key() == TransformType.Jvp for level in levels) > 1:
        raise NotImplementedError(
            "a forward-mode derivative of a forward-mode derivative: take one of the two backward, "
            "as torch.func.hessian does"
        )


@torch.compiler.assume_constant_result
def _is_for_onnx() -> bool:
    return torch.onnx.is_in_onnx_export()


def _for_onnx(input: Tensor, grid: Tensor, options: Options) -> Tensor:
    """Sample by PyTorch's own function, which the exporter turns into ``GridSample``."""
    kernel, padding_mode, align_corners = options.sampler
    modes = ("nearest", "bilinear") if input.ndim == 5 else ("nearest", "bilinear", "bicubic")
    what = "volumes" if input.ndim == 5 else "images"
    mode = next((name for name in modes if KERNELS[name] == kernel), "")
    for name, value, fine in (
        ("mode", kernel, bool(mode)),
        ("padding_mode", padding_mode, padding_mode in ("zeros", "border", "reflection")),
        ("coordinates", options.coordinates, options.coordinates == "normalised"),
        ("antialias", options.antialias, not options.antialias),
    ):
        if not fine:
            raise ValueError(
                f"{name}: ONNX's GridSample cannot express {value!r} for {what}; it has "
                f"{', '.join(modes)}, with zeros, border or reflection, and normalised coordinates"
            )
    return torch.nn.functional.grid_sample(
        input, grid.to(input.dtype), mode, padding_mode, align_corners
    )


def _require_tensors(**arguments: Any) -> None:
    for name, value in arguments.items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name}: expected a PyTorch tensor, got {type(value).__name__}; stnlib's function takes arrays"
            )
