"""Who computes it: the package's own engines, and other libraries, each called as its users would call it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import stnlib

from .. import engines, transforms
from ..options import resolve
from . import DEVICES, DIRECTIONS, OURS
from .cases import Arrays, Case

Run = Callable[[], list[Any]]
"""A call, its arguments at hand, that returns what `DIRECTIONS` lists."""


class Contender(NamedTuple):
    """One that computes what a case asks for, on some devices, in some directions."""

    make: Callable[[Case, str], Run]
    devices: Sequence[str] = DEVICES
    directions: Sequence[str] = tuple(DIRECTIONS)


def tolerances(name: str, case: Case) -> dict[str, float]:
    """Return the error from which on a contender counts as wrong, in the units of `cases.errors`.

    The package's own positions are in float64. Where they are in float32, each is off by some roundings of the image's
    width, and theta's gradient takes another slope where that crosses a pixel. OpenCV's may be rounded to 1/32 of a
    pixel, each way.
    """
    if name in OURS:
        return {"output": 1e-5, "grad_input": 1e-5, "grad_theta": 1e-4}
    output = 2e-6 * max(*case.size.input, *case.size.output)
    output = 1 / 16 if name == "opencv" else max(1e-5, output)
    return {"output": output, "grad_input": 2 * output, "grad_theta": 0.05}


# The package's own


def _require_engine(case: Case, arrays: Arrays) -> None:
    """Raise unless the device's engine takes such arrays: the reference would serve, and be timed in its place."""
    if engines.pick(case.device, resolve(), arrays.image, recorded=True) is None:
        raise NotImplementedError("the engine leaves this case to the reference")


def _ours(case: Case, direction: str) -> Run:
    """Hand the engine tensors, by way of `stnlib.nn.functional` and autograd."""
    from ..nn import functional

    _require_engine(case, case.torch)

    def sample(image: Any, places: Any) -> Any:
        if direction == "grid":
            return functional.grid_sample(image, places, engine=case.device)
        return functional.affine_sample(image, places, case.size.output, engine=case.device)

    return _recorded(case.torch, sample, direction)


def _our_arrays(case: Case, direction: str) -> Run:
    """Hand the engine NumPy arrays or, on a GPU, CuPy's."""
    _require_engine(case, case.arrays)
    return _plain(case, direction, case.device)


def _deterministic(case: Case, direction: str) -> Run:
    """Have the gradients the same each time, bit for bit."""
    run = _our_arrays(case, direction)

    def in_order() -> list[Any]:
        with engines.deterministic():
            return run()

    return in_order


def _reference(case: Case, direction: str) -> Run:
    """Call the array code of chapters 1 to 3."""
    return _plain(case, direction, "reference")


def _plain(case: Case, direction: str, engine: str) -> Run:
    """Return the call of an engine on arrays."""
    image, theta, grid, grad = case.arrays

    def run() -> list[Any]:
        if direction == "grid":
            return [stnlib.grid_sample(image, grid, engine=engine)]
        results: list[Any] = []
        if "forward" in direction:
            results += [stnlib.affine_sample(image, theta, case.size.output, engine=engine)]
        if "backward" in direction:
            needs = (True, True, False)
            results += stnlib.affine_sample_vjp(grad, image, theta, needs=needs, engine=engine)
        return results[: len(DIRECTIONS[direction])]

    return run


# PyTorch


def _recorded(arrays: Arrays, sample: Callable[[Any, Any], Any], direction: str) -> Run:
    """Return a call that PyTorch differentiates, of a sampler that takes images and theta, or images and a grid."""
    import torch

    places = arrays.grid if direction == "grid" else arrays.theta
    leaves = [tensor.detach().requires_grad_() for tensor in (arrays.image, places)]
    if "backward" not in direction:
        return torch.no_grad()(lambda: [sample(arrays.image, places)])
    if direction == "backward":
        output = sample(*leaves)
        return lambda: list(torch.autograd.grad(output, leaves, arrays.grad, retain_graph=True))

    def both() -> list[Any]:
        output = sample(*leaves)
        return [output.detach(), *torch.autograd.grad(output, leaves, arrays.grad)]

    return both


def planar_grid(theta: Any, size: Sequence[int]) -> Any:
    """Return the grid of thetas that lies in memory as planes: PyTorch's fastest way on a CPU, for nothing.

    ``torch.nn.functional.affine_grid`` fills an (N, H, W, 3) base grid and multiplies. The same numbers computed as
    x and y planes cost less, and ``grid_sample`` takes them as well.

    Parameters
    ----------
    theta : tensor of float32 or float64, shape (N, 2, 3)
    size : (H, W)

    Returns
    -------
    tensor of theta's dtype, shape (N, H, W, 2)
        What ``affine_grid(theta, (N, C, H, W), align_corners=False)`` returns, strided as (N, 2, H, W).

    Examples
    --------
    >>> import torch
    >>> planar_grid(torch.eye(2, 3)[None], (1, 2)).tolist()
    [[[[-0.5, 0.0], [0.5, 0.0]]]]
    """
    import torch

    height, width = size
    options = {"dtype": theta.dtype, "device": theta.device}
    x = (2 * torch.arange(width, **options) + 1) / width - 1
    y = (2 * torch.arange(height, **options) + 1) / height - 1
    along_x, along_y, shift = theta[..., None, None].unbind(2)
    return (along_x * x + (along_y * y[:, None] + shift)).permute(0, 2, 3, 1)


def _torch(case: Case, direction: str) -> Run:
    """Call affine_grid and grid_sample or, where there is a grid, grid_sample."""
    from torch.nn.functional import affine_grid, grid_sample

    n, c, _, target = case.size

    def sample(image: Any, places: Any) -> Any:
        if direction != "grid":
            places = affine_grid(places, [n, c, *target], align_corners=False)
        return grid_sample(image, places, align_corners=False)

    return _recorded(case.torch, sample, direction)


def _torch_planar(case: Case, direction: str) -> Run:
    from torch.nn.functional import grid_sample

    def sample(image: Any, theta: Any) -> Any:
        return grid_sample(image, planar_grid(theta, case.size.output), align_corners=False)

    return _recorded(case.torch, sample, direction)


def _kornia(case: Case, direction: str) -> Run:
    """Call warp_affine, which takes the matrices from the input's pixels to the output's."""
    import torch
    from kornia.geometry.transform import warp_affine

    image = case.torch.image
    matrix = torch.from_numpy(transforms.inverse(_matrices(case))).to(image)

    def run() -> list[Any]:
        return [warp_affine(image, matrix, case.size.output, align_corners=True)]

    return run


# Without gradients


def _matrices(case: Case) -> np.ndarray:
    """Return the matrices (N, 2, 3), in float64, from the output's pixels (x, y) to the input's."""
    theta = case.numpy.theta.astype(np.float64)
    return transforms.theta_to_pixel(theta, case.size.input, case.size.output)


def _opencv(case: Case, direction: str) -> Run:
    """Call warpAffine for each image, its channels last."""
    import cv2

    images = np.ascontiguousarray(np.moveaxis(case.numpy.image, 1, -1))
    matrices, (height, width) = _matrices(case), case.size.output
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

    def run() -> list[Any]:
        output = np.empty((len(images), height, width, case.size.c), np.float32)
        for image, matrix, target in zip(images, matrices, output, strict=True):
            cv2.warpAffine(image, matrix, (width, height), dst=target, flags=flags)
        return [np.moveaxis(output, -1, 1)]

    return run


def _scipy(case: Case, direction: str) -> Run:
    from scipy import ndimage

    return _affine_transform(case, ndimage, np)


def _cupy(case: Case, direction: str) -> Run:
    import cupy
    from cupyx.scipy import ndimage

    return _affine_transform(case, ndimage, cupy)


def _affine_transform(case: Case, ndimage: Any, xp: Any) -> Run:
    """Call affine_transform, which names the row first, for each channel of each image."""
    image, size = case.arrays.image, case.size.output
    matrices = _matrices(case)[:, ::-1, [1, 0, 2]]
    # CuPy reads the shift on the CPU: on the GPU it would be waited for.
    turns, shifts = xp.asarray(matrices[:, :, :2]), matrices[:, :, 2]
    options = {"order": 1, "mode": "grid-constant", "prefilter": False}

    def run() -> list[Any]:
        output = xp.empty((*image.shape[:2], *size), image.dtype)
        for channels, turn, shift, targets in zip(image, turns, shifts, output, strict=True):
            for channel, target in zip(channels, targets, strict=True):
                ndimage.affine_transform(channel, turn, shift, size, target, **options)
        return [output]

    return run


_forward, _backward = ("forward",), ("forward+backward", "backward")

CONTENDERS = {
    "stnlib": Contender(_ours),
    "stnlib-arrays": Contender(_our_arrays),
    "stnlib-deterministic": Contender(_deterministic, ("cuda",), _backward),
    "reference": Contender(_reference),
    "torch": Contender(_torch),
    "torch-planar": Contender(_torch_planar, DEVICES, (*_forward, *_backward)),
    "kornia": Contender(_kornia, DEVICES, _forward),
    "opencv": Contender(_opencv, ("cpu",), _forward),
    "scipy": Contender(_scipy, ("cpu",), _forward),
    "cupy": Contender(_cupy, ("cuda",), _forward),
}
"""Every contender by its name. Whatever `Contender.make` raises is the reason why it is not measured."""
