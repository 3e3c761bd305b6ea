"""Gather and scatter as operators of PyTorch, for graphs that are compiled or exported.

``torch.compile`` and ``torch.export`` take an operator as it is; they cannot look into an autograd function with a
forward-mode rule. An operator, in turn, has no forward mode of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import array_api_compat.torch as xp
import torch
from torch import Tensor

from .. import gather_scatter
from ..gather_scatter import Orders, Sampler, position_gradient
from ..interpolation import BY_KEY


@torch.library.custom_op("stnlib::gather", mutates_args=())
def _gather(
    input: Tensor,
    fill: Tensor,
    position: Tensor,
    orders: Sequence[int],
    kernel: str,
    padding_mode: str,
    align_corners: bool,
) -> Tensor:
    sampler = Sampler(BY_KEY[kernel], padding_mode, align_corners)
    pairs = _split(orders, position.shape[-1])
    return gather_scatter.gather(input, fill, position, pairs, sampler, xp)


@torch.library.custom_op("stnlib::scatter", mutates_args=())
def _scatter(
    values: Tensor,
    position: Tensor,
    orders: Sequence[int],
    size: Sequence[int],
    kernel: str,
    padding_mode: str,
    align_corners: bool,
) -> tuple[Tensor, Tensor]:
    sampler = Sampler(BY_KEY[kernel], padding_mode, align_corners)
    pairs = _split(orders, position.shape[-1])
    return gather_scatter.scatter(values, position, pairs, sampler, size, xp)


def gather(
    input: Tensor, fill: Tensor, position: Tensor, orders: Orders, sampler: Sampler
) -> Tensor:
    """Gather, as an operator: see `stnlib.gather_scatter.gather`."""
    _refuse_forward_mode()
    return _gather(input, fill, position, _joined(orders), sampler[0].key, *sampler[1:])


def scatter(
    values: Tensor, position: Tensor, orders: Orders, size: Sequence[int], sampler: Sampler
) -> tuple[Tensor, Tensor]:
    """Scatter, as an operator: see `stnlib.gather_scatter.scatter`."""
    return _scatter(values, position, _joined(orders), size, sampler[0].key, *sampler[1:])


def fold(
    batch: int, in_dims: Sequence[int | None], tensors: Sequence[Tensor], places: Sequence[int]
) -> list[Tensor]:
    """Fold a dimension that is mapped over into the images' own, which each tensor has at its place."""
    result = []
    for tensor, dim, place in zip(tensors, in_dims, places, strict=False):
        if dim is None:
            shape = list(tensor.shape)
            tensor = tensor.unsqueeze(place).expand(*shape[:place], batch, *shape[place:])
        else:
            tensor = tensor.movedim(dim, place)
        result.append(tensor.flatten(place, place + 1))
    return result


def _joined(orders: Orders) -> list[int]:
    return [i for order in orders for i in order]


def _split(orders: Sequence[int], dimensions: int) -> list[tuple[int, ...]]:
    return [tuple(orders[i : i + dimensions]) for i in range(0, len(orders), dimensions)]


def _refuse_forward_mode() -> None:
    """Raise under forward-mode differentiation, for which an operator would return zeros in silence."""
    if torch.autograd.forward_ad._current_level >= 0:
        raise NotImplementedError(
            "forward-mode derivatives of the sampler cannot be compiled: call torch.func.jvp outside torch.compile, "
            "or differentiate backward"
        )


@_gather.register_fake
def _(input, fill, position, orders, kernel, padding_mode, align_corners):  # type: ignore[no-untyped-def]
    n, length, dimensions = position.shape
    dtype = gather_scatter.computing_dtype(input, xp)
    shape = (len(orders) // dimensions, n, input.shape[1], length)
    return torch.empty(shape, dtype=dtype, device=input.device)


@_scatter.register_fake
def _(values, position, orders, size, kernel, padding_mode, align_corners):  # type: ignore[no-untyped-def]
    _, n, c, _ = values.shape
    return values.new_empty((n, c, *size)), values.new_empty((n, c))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    tensors = [value for value in inputs if isinstance(value, Tensor)]
    ctx.save_for_backward(*tensors)
    orders, *ctx.size, kernel, padding_mode, align_corners = inputs[len(tensors) :]
    ctx.orders = _split(orders, tensors[-1].shape[-1])
    ctx.sampler = Sampler(BY_KEY[kernel], padding_mode, align_corners)


def _bound(sampler: Sampler) -> Any:
    def bound(input: Tensor, fill: Tensor, position: Tensor, orders: Orders) -> Tensor:
        return gather(input, fill, position, orders, sampler)

    return bound


def _gather_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, fill, position = ctx.saved_tensors
    grads: list[Tensor | None] = [None, None, None]
    if any(ctx.needs_input_grad[:2]):
        pixels, grads[1] = scatter(grad, position, ctx.orders, input.shape[2:], ctx.sampler)
        grads[0] = pixels.to(input.dtype)
    if ctx.needs_input_grad[2]:
        bound = _bound(ctx.sampler)
        grads[2] = position_gradient(grad, input, fill, position, ctx.orders, bound, xp)
    return (*grads, None, None, None, None)


def _scatter_backward(
    ctx: Any, grad_pixels: Tensor, grad_fill: Tensor
) -> tuple[Tensor | None, ...]:
    bound = _bound(ctx.sampler)
    arguments = (grad_pixels, grad_fill, *ctx.saved_tensors, ctx.orders, bound, xp)
    return (*gather_scatter.scatter_vjp(*arguments), None, None, None, None, None)


def _gather_vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Tensor, int]:
    folded = fold(info.batch_size, in_dims, inputs[:3], (0, 0, 0))
    return _gather(*folded, *inputs[3:]).unflatten(1, (info.batch_size, -1)), 1


def _scatter_vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Any, tuple[int, int]]:
    folded = fold(info.batch_size, in_dims, inputs[:2], (1, 0))
    outputs = _scatter(*folded, *inputs[2:])
    return tuple(t.unflatten(0, (info.batch_size, -1)) for t in outputs), (0, 0)


_gather.register_autograd(_gather_backward, setup_context=_save)
_scatter.register_autograd(_scatter_backward, setup_context=_save)
_gather.register_vmap(_gather_vmap)
_scatter.register_vmap(_scatter_vmap)
