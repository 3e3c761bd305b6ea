"""What each library's sampler can do, tried or cited: the table of the page "Coming from …".

    python -m stnlib.experiments.features

tries every feature in every library that is installed, against an answer known beforehand, and writes
``results/features.json``. What cannot be tried here is cited, with the address of the page that says it; what needs a
library that is not installed keeps the answer that the file already holds.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import stnlib

from ..interpolation import Kernel
from . import records

Read = Callable[..., np.ndarray]

PACKAGES = {
    "stnlib": "stnlib",
    "PyTorch": "torch",
    "kornia": "kornia",
    "SciPy": "scipy",
    "CuPy": "",  # needs a GPU: cited alone
    "OpenCV": "opencv-python-headless",
}
MODULES = {"PyTorch": "torch", "kornia": "kornia", "SciPy": "scipy", "OpenCV": "cv2"}

CUPY = "https://docs.cupy.dev/en/stable/reference/"
CUPY_MAP = CUPY + "generated/cupyx.scipy.ndimage.map_coordinates.html"
CUPY_AFFINE = CUPY + "generated/cupyx.scipy.ndimage.affine_transform.html"
CUPY_LIST = CUPY + "scipy_ndimage.html"
SCIPY_LIST = "https://docs.scipy.org/doc/scipy/reference/ndimage.html"
SCIPY_MAP = (
    "https://docs.scipy.org/doc/scipy/reference/generated/scipy.ndimage.map_coordinates.html"
)
OPENCV = "https://docs.opencv.org/4.x/da/d54/group__imgproc__transform.html"
TORCH = "https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.grid_sample.html"


class Probe(NamedTuple):
    """A question that is answered by trying."""

    ask: Callable[[], Any]
    modules: tuple[str, ...] = ()  # that it needs beside its library's own


class Cited(NamedTuple):
    """A question that a page answers; None where the page does not say."""

    answer: bool | None
    source: str


class Feature(NamedTuple):
    """A row of the table."""

    group: str
    name: str
    cells: dict[str, Probe | Cited]


def try_it(probe: Probe) -> bool:
    """Return whether a probe finds the answer that it knows; a library that refuses does not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return bool(probe.ask())
        except Exception:  # each library refuses in its own way
            return False


def can_try(library: str, probe: Probe) -> bool:
    """Return whether all that a probe needs is installed."""
    needed = [*filter(None, [MODULES.get(library)]), *probe.modules]
    return all(importlib.util.find_spec(module) for module in needed)


# How each library reads images (C, H, W) at pixel positions x and y; unknown options are handed on, to be refused.


def read_stnlib(
    image: np.ndarray, x: Any, y: Any, kernel: Any, padding: str, **fill: Any
) -> np.ndarray:
    """Read with stnlib."""
    grid = np.stack(np.broadcast_arrays(x, y), axis=-1)[None, None]
    options: dict[str, Any] = {"coordinates": "pixel", "mode": kernel, "padding_mode": padding}
    return stnlib.grid_sample(image[None], grid, **options, **fill)[0, :, 0]


def read_torch(
    image: np.ndarray, x: Any, y: Any, kernel: Any, padding: str, **fill: Any
) -> np.ndarray:
    """Read with PyTorch."""
    torch = importlib.import_module("torch")
    corners = padding == "mirror"
    places = (
        stnlib.normalise(np.asarray(p, dtype=float), length, align_corners=corners)
        for p, length in ((x, image.shape[2]), (y, image.shape[1]))
    )
    grid = torch.from_numpy(np.stack(np.broadcast_arrays(*places), axis=-1)[None, None])
    options = {"mode": kernel, "padding_mode": "reflection" if corners else padding}
    sample = torch.nn.functional.grid_sample
    image = torch.from_numpy(image)[None]
    return sample(image, grid, align_corners=corners, **options, **fill)[0, :, 0].numpy()


def read_kornia(
    image: np.ndarray, x: Any, y: Any, kernel: Any, padding: str, **fill: Any
) -> np.ndarray:
    """Read with kornia, whose warps take a matrix: the positions are evenly spaced, along one row."""
    torch = importlib.import_module("torch")
    warp = importlib.import_module("kornia.geometry.transform").warp_affine
    x, step = np.asarray(x, dtype=float), float(np.diff(x)[0]) if np.size(x) > 1 else 1.0
    forward = torch.tensor([[[1 / step, 0, -x.flat[0] / step], [0, 1, 0]]], dtype=torch.float64)
    options = {"mode": kernel, "align_corners": padding != "reflection"}
    options["padding_mode"] = "reflection" if padding == "mirror" else padding
    if fill:
        value = np.broadcast_to(fill["fill_value"], image.shape[:1])
        fill = {"fill_value": torch.tensor(value, dtype=torch.float64)}
    size = (image.shape[1], x.size)
    out = warp(torch.from_numpy(image)[None], forward, size, **options, **fill)
    return out[0, :, int(y)].numpy()


SCIPY_MODES = {
    "zeros": "grid-constant",
    "fill": "grid-constant",
    "border": "nearest",
    "reflection": "reflect",
    "mirror": "mirror",
    "wrap": "grid-wrap",
}


def read_scipy(
    image: np.ndarray, x: Any, y: Any, kernel: Any, padding: str, fill_value: Any = 0.0
) -> np.ndarray:
    """Read with SciPy, all channels in one call."""
    ndimage = importlib.import_module("scipy.ndimage")
    order = {"bilinear": 1, "bspline3": 3}.get(kernel, kernel)
    c, y, x = np.broadcast_arrays(np.arange(len(image))[:, None], y, x)
    mode = SCIPY_MODES[padding]
    return ndimage.map_coordinates(image, [c, y, x], order=order, mode=mode, cval=fill_value)


def read_opencv(
    image: np.ndarray, x: Any, y: Any, kernel: Any, padding: str, fill_value: Any = 0.0
) -> np.ndarray:
    """Read with OpenCV."""
    cv2 = importlib.import_module("cv2")
    borders = {"zeros": "CONSTANT", "fill": "CONSTANT", "border": "REPLICATE", "wrap": "WRAP"}
    borders |= {"reflection": "REFLECT", "mirror": "REFLECT_101"}
    kernels = {"bilinear": "LINEAR", "bicubic": "CUBIC", "bspline3": "SPLINE3"}
    x, y = (np.asarray(p, dtype=np.float32)[None] for p in np.broadcast_arrays(x, y))
    value = tuple(np.broadcast_to(fill_value, len(image)).tolist())
    out = cv2.remap(
        np.ascontiguousarray(np.moveaxis(image.astype(np.float32), 0, -1)),
        x,
        y,
        getattr(cv2, "INTER_" + kernels.get(kernel, kernel)),
        borderMode=getattr(cv2, "BORDER_" + borders[padding]),
        borderValue=value,
    )
    return out.reshape(x.size, len(image)).T


READERS: dict[str, Read] = {
    "stnlib": read_stnlib,
    "PyTorch": read_torch,
    "kornia": read_kornia,
    "SciPy": read_scipy,
    "OpenCV": read_opencv,
}


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> bool:
    """Return whether every number is as expected; a NaN is not."""
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    return found.size > 0 and bool(np.all(np.abs(found - expected) <= tolerance))


# Kernels and padding. Images have five equal rows, so that only x matters.


def _rows(row: Sequence[float], channels: int = 1) -> np.ndarray:
    return np.tile(np.asarray(row, dtype=float), (channels, 5, 1))


def bilinear(read: Read) -> bool:
    """Expect 2.5 a quarter of the way from 2 to 4."""
    return close(read(_rows([1, 2, 4, 8]), [1.25], 2, "bilinear", "border"), 2.5)


def bicubic(read: Read) -> bool:
    """Expect of Keys's kernel, half a pixel from a single 1, 0.59375 (a = -0.75) or 0.5625 (a = -0.5)."""
    found = read(_rows([0, 0, 0, 1, 0, 0, 0]), [3.5], 2, "bicubic", "border")
    return close(found, 0.59375) or close(found, 0.5625)


def bspline(read: Read) -> bool:
    """Expect the cubic spline through a cosine's samples, mirrored at its peaks, which has a closed form."""
    w, x = np.pi / 4, np.arange(8) + 0.5
    shrunk = (23 * np.cos(w / 2) + np.cos(1.5 * w)) / 24 * 6 / (4 + 2 * np.cos(w))
    found = read(_rows(np.cos(w * np.arange(9))), x, 2, "bspline3", "mirror")
    return close(found, shrunk * np.cos(w * x), 1e-9)


class Cosine(Kernel):
    """A kernel of one's own."""

    support = 1

    def value(self, d: Any, xp: Any) -> Any:
        """Return k(d)."""
        return (1 + xp.cos(xp.pi * d)) / 2


def own_kernel(read: Read) -> bool:
    """Expect 10 cos² of 22.5 degrees of a raised cosine, a quarter of a pixel from 10 and three quarters from 0."""
    found = read(_rows([10, 0, 0]), [0.25], 2, Cosine(), "border")
    return close(found, 10 * np.cos(np.pi / 8) ** 2)


# [1, 2, 4, 8] read at -2.25, -1.25, …, 5.75
PADDED = {
    "zeros": [0, 0, 0.75, 1.75, 3.5, 7, 2, 0, 0],
    "border": [1, 1, 1, 1.75, 3.5, 7, 8, 8, 8],
    "reflection": [2.5, 1.25, 1, 1.75, 3.5, 7, 8, 5, 2.5],
    "mirror": [5, 2.5, 1.25, 1.75, 3.5, 7, 5, 2.5, 1.25],
    "wrap": [3.5, 7, 2.75, 1.75, 3.5, 7, 2.75, 1.75, 3.5],
}


def padding(read: Read, mode: str) -> bool:
    """Expect the row that PADDED holds."""
    return close(
        read(_rows([1, 2, 4, 8]), np.arange(9) - 2.25, 2, "bilinear", mode), PADDED[mode]
    )


def fill(read: Read, values: Sequence[float]) -> bool:
    """Expect the fill value beside the image, blended with it at the border."""
    image, x = _rows([1, 2, 4, 8], channels=3), np.arange(9) - 2.25
    value = values[0] if len(values) == 1 else np.asarray(values)
    share = np.array([1, 1, 0.25, 0, 0, 0, 0.75, 1, 1])
    expected = PADDED["zeros"] + np.broadcast_to(values, 3)[:, None] * share
    return close(read(image, x, 2, "bilinear", "fill", fill_value=value), expected)


# Volumes

POLE = 3**0.5 - 2
CARDINAL = (
    3**0.5 * (1 + POLE) * (23 + POLE) / 48
)  # the cubic spline through a single 1, half a pixel from it


def _sample_volume(library: str, volume: np.ndarray, x: float, kernel: str) -> float:
    """Read a volume (D, H, W) of odd sizes at x, in the middle of its depth and its height."""
    d, h, w = volume.shape
    place = np.array([x, (h - 1) / 2, (d - 1) / 2])
    if library == "SciPy":
        order = {"bilinear": 1, "bicubic": 3}[kernel]
        ndimage = importlib.import_module("scipy.ndimage")
        return float(ndimage.map_coordinates(volume, place[::-1, None], order=order)[0])
    if library == "stnlib":
        grid = place.reshape(1, 1, 1, 1, 3)
        options: dict[str, Any] = {"mode": kernel, "coordinates": "pixel"}
        return stnlib.grid_sample(volume[None, None], grid, **options).item()
    torch = importlib.import_module("torch")
    tensor = torch.from_numpy(volume)[None, None]
    if library == "PyTorch":
        grid = torch.zeros(1, 1, 1, 1, 3, dtype=torch.float64)
        grid[..., 0] = 2 * x / (w - 1) - 1
        sample = torch.nn.functional.grid_sample
        return sample(tensor, grid, mode=kernel, align_corners=True).item()
    warp = importlib.import_module("kornia.geometry.transform").warp_affine3d
    shift = torch.eye(4, dtype=torch.float64)[None, :3]
    shift[0, 0, 3] = (w - 1) / 2 - x
    return warp(tensor, shift, (d, h, w), flags=kernel)[0, 0, d // 2, h // 2, w // 2].item()


def trilinear(library: str) -> bool:
    """Expect of x + 10 y + 100 z, which a linear kernel keeps, the place itself."""
    z, y, x = np.meshgrid(np.arange(3.0), np.arange(5.0), np.arange(7.0), indexing="ij")
    volume = x + 10 * y + 100 * z
    return close(_sample_volume(library, volume, 2.75, "bilinear"), 122.75)


def tricubic(library: str) -> bool:
    """Expect, half a pixel from a single 1, one of the values of `bicubic`, or the spline's."""
    volume = np.zeros((9, 11, 13))
    volume[4, 5, 6] = 1
    found = _sample_volume(library, volume, 6.5, "bicubic")
    return any(close(found, value, 1e-3) for value in (0.59375, 0.5625, CARDINAL))


# Coordinates


def normalised(read: Callable[[np.ndarray, float], float]) -> bool:
    """Expect 0 to be the middle of an image of any width."""
    return all(close(read(np.linspace(0, 10, w), 0.0), 5) for w in (2, 7))


def _normalised_stnlib(row: np.ndarray, x: float) -> float:
    image, grid = row[None, None, None], np.array([[[[x, 0.0]]]])
    return stnlib.grid_sample(image, grid).item()


def _normalised_torch(row: np.ndarray, x: float) -> float:
    torch = importlib.import_module("torch")
    image = torch.from_numpy(row)[None, None, None]
    grid = torch.tensor([[[[x, 0.0]]]], dtype=torch.float64)
    return torch.nn.functional.grid_sample(image, grid, align_corners=False).item()


def _normalised_kornia(row: np.ndarray, x: float) -> float:
    torch = importlib.import_module("torch")
    remap = importlib.import_module("kornia.geometry.transform").remap
    image = torch.from_numpy(row)[None, None, None]
    x, y = (torch.full((1, 1, 1), v, dtype=torch.float64) for v in (x, 0.0))
    return remap(image, x, y, align_corners=True, normalized_coordinates=True).item()


def precision(library: str) -> bool:
    """Expect 65536 float32 pixels, 0 and 1 in turn, to tell where they are read to a millionth of a pixel."""
    row = np.tile(np.array([0, 1], dtype=np.float32), 32768)[None]
    x = np.random.default_rng(0).uniform(0, 65535, 1000)
    expected = 1 - np.abs(x % 2 - 1)
    if library == "SciPy":
        ndimage = importlib.import_module("scipy.ndimage")
        found = ndimage.map_coordinates(row, [np.zeros_like(x), x], order=1)
    elif library == "OpenCV":
        cv2 = importlib.import_module("cv2")
        found = cv2.remap(row, x[None], np.zeros_like(x)[None], cv2.INTER_LINEAR)
    else:
        grid = np.stack([x, np.zeros_like(x)], axis=-1)[None, None]
        if library == "stnlib":
            found = stnlib.grid_sample(row[None, None], grid, coordinates="pixel")
        else:
            torch = importlib.import_module("torch")
            sample = SAMPLERS[library]()
            grid[..., 0] = stnlib.normalise(x, 65536, align_corners=True)
            image = torch.from_numpy(row)[None, None]
            found = sample(image, torch.from_numpy(grid), align_corners=True)
    return str(found.dtype).endswith("float32") and close(np.ravel(found), expected, 1e-6)


def antialiased(library: str) -> bool:
    """Expect an even grey of a checkerboard turned and shrunk eight times, and no change by a shift of whole pixels."""
    board = np.indices((128, 128)).sum(axis=0) % 2.0
    turn = 8 * np.array([[0.8, -0.6], [0.6, 0.8]])
    matrix = np.column_stack([turn, [64, 64] - turn @ [3.5, 3.5]])
    small = _warp(library, board, matrix, 8)
    same = _warp(library, board, np.array([[1.0, 0, 32], [0, 1, 32]]), 64)
    return close(small, 0.5, 0.05) and close(same, board[32:96, 32:96])


def _warp(library: str, image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Warp by a matrix from output to input pixels, as smoothly as the library can."""
    if library == "SciPy":
        ndimage = importlib.import_module("scipy.ndimage")
        rows = matrix[::-1][:, [1, 0, 2]]
        return ndimage.affine_transform(image, rows, output_shape=(size, size), order=1)
    if library == "OpenCV":
        cv2 = importlib.import_module("cv2")
        flags = cv2.INTER_AREA | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(image.astype(np.float32), matrix, (size, size), flags=flags)
    if library == "stnlib":
        options: dict[str, Any] = {"coordinates": "pixel", "antialias": True}
        return stnlib.affine_sample(image[None, None], matrix[None], (size, size), **options)[
            0, 0
        ]
    torch = importlib.import_module("torch")
    theta = stnlib.transforms.pixel_to_theta(matrix, image.shape, (size, size))
    f = torch.nn.functional
    grid = f.affine_grid(torch.from_numpy(theta)[None], (1, 1, size, size), align_corners=False)
    tensor = torch.from_numpy(image)[None, None]
    if library == "PyTorch":
        return f.grid_sample(tensor, grid, align_corners=False, antialias=True)[0, 0].numpy()
    warp = importlib.import_module("kornia.geometry.transform").warp_affine
    forward = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    forward = torch.from_numpy(forward)[None]
    return warp(tensor, forward, (size, size), antialias=True)[0, 0].numpy()


# PyTorch: the function that samples a tensor at a grid, and the one that goes from theta to the output


def _torch_sampler() -> Callable[..., Any]:
    return importlib.import_module("torch").nn.functional.grid_sample


def _stnlib_sampler() -> Callable[..., Any]:
    return importlib.import_module("stnlib.nn.functional").grid_sample


def _kornia_sampler() -> Callable[..., Any]:
    remap = importlib.import_module("kornia.geometry.transform").remap

    def sample(image: Any, grid: Any, align_corners: bool = False, **options: Any) -> Any:
        places = {"align_corners": align_corners, "normalized_coordinates": True}
        return remap(image, grid[..., 0], grid[..., 1], **places, **options)

    return sample


SAMPLERS = {"stnlib": _stnlib_sampler, "PyTorch": _torch_sampler, "kornia": _kornia_sampler}


def _torch_warp(library: str) -> Callable[[Any, Any], Any]:
    """Return the library's way from an image and a theta to the output, of the image's size."""
    if library == "stnlib":
        affine_sample = importlib.import_module("stnlib.nn.functional").affine_sample
        return lambda image, theta: affine_sample(image, theta, image.shape[2:])
    if library == "PyTorch":
        f = importlib.import_module("torch").nn.functional
        return lambda image, theta: f.grid_sample(
            image, f.affine_grid(theta, image.shape, align_corners=False), align_corners=False
        )
    warp = importlib.import_module("kornia.geometry.transform").warp_affine
    return lambda image, theta: warp(image, theta, tuple(image.shape[2:]))


def _square(dtype: str = "float64") -> tuple[Any, Any]:
    """Return a square of four pixels, [[0, 10], [20, 30]], and a grid that reads its middle."""
    torch = importlib.import_module("torch")
    image = torch.tensor([[[[0.0, 10.0], [20.0, 30.0]]]], dtype=getattr(torch, dtype))
    return image, torch.zeros(1, 1, 1, 2, dtype=image.dtype)


def gradient(library: str, of: str) -> bool:
    """Expect a quarter for each pixel of the square, read in its middle, and rises of 10 along x and 20 along y."""
    sample = SAMPLERS[library]()
    image, grid = (tensor.requires_grad_() for tensor in _square())
    sample(image, grid, **_corners(library)).sum().backward()
    if library == "stnlib":  # and without PyTorch
        ours = stnlib.grid_sample_vjp(np.ones((1, 1, 1, 1)), *(t.numpy() for t in _square()))
        expected = [[0.25] * 4, [10, 20]]
        if not all(
            close(np.ravel(np.asarray(g)), e) for g, e in zip(ours[:2], expected, strict=True)
        ):
            return False
    # From one corner's centre to the other it is half as far as from edge to edge.
    unit = 0.5 if library == "kornia" else 1.0
    if of == "grid":
        return close(grid.grad.ravel(), [10 * unit, 20 * unit])
    return close(image.grad.ravel(), [0.25] * 4)


def _corners(library: str) -> dict[str, bool]:
    return {"align_corners": library == "kornia"}


def gradient_of_theta(library: str) -> bool:
    """Expect what finite differences give, away from kinks."""
    torch = importlib.import_module("torch")
    warp = _torch_warp(library)
    image = torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(0)).double()
    theta = torch.tensor([[[0.73, -0.21, 0.11], [0.19, 0.83, -0.07]]], dtype=torch.float64)
    return torch.autograd.gradcheck(partial(warp, image), theta.requires_grad_())


def double_backward(library: str) -> bool:
    """Expect what finite differences of the gradient give."""
    torch = importlib.import_module("torch")
    sample = partial(SAMPLERS[library](), align_corners=False)
    generator = torch.Generator().manual_seed(0)
    image, grid = (
        torch.rand(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((1, 1, 4, 4), (1, 2, 2, 2))
    )
    return torch.autograd.gradgradcheck(sample, (image, grid))


def forward_mode(library: str) -> bool:
    """Expect what `gradient` says as the grid moves by half a unit of x, and 1 as every pixel rises by 1."""
    torch = importlib.import_module("torch")
    sample = partial(SAMPLERS[library](), **_corners(library))
    image, grid = _square()
    step = torch.zeros_like(grid)
    step[..., 0] = 0.5
    rise = 2.5 if library == "kornia" else 5.0
    _, along_grid = torch.func.jvp(partial(sample, image), (grid,), (step,))
    _, along_image = torch.func.jvp(
        lambda i: sample(i, grid), (image,), (torch.ones_like(image),)
    )
    return close(along_grid, rise) and close(along_image, 1)


def vmap(library: str) -> bool:
    """Expect twice and three times as much of a square twice and three times as bright."""
    torch = importlib.import_module("torch")
    sample = partial(SAMPLERS[library](), align_corners=False)
    image, grid = _square()
    images = torch.stack([image, 2 * image, 3 * image])
    found = torch.func.vmap(sample)(images, torch.stack([grid] * 3))
    return close(found.ravel(), [15, 30, 45])


def compiled(library: str) -> bool:
    """Expect one graph, forward and backward, with nothing left to Python."""
    torch = importlib.import_module("torch")
    sample = partial(SAMPLERS[library](), align_corners=False)
    torch.compiler.reset()
    quick = torch.compile(lambda i, g: sample(i, g), fullgraph=True, backend="aot_eager")
    image, grid = (tensor.requires_grad_() for tensor in _square("float32"))
    out = quick(image, grid)
    out.sum().backward()
    return close(out.detach(), 15) and close(image.grad.ravel(), [0.25] * 4)


def half(library: str, dtype: str) -> bool:
    """Expect the mean of the square, in half precision."""
    image, grid = _square(dtype)
    out = SAMPLERS[library]()(image, grid, align_corners=False)
    return out.dtype == image.dtype and close(out.float(), 15)


def half_scipy(dtype: str) -> bool:
    """Expect the mean of the square, in half precision."""
    ndimage = importlib.import_module("scipy.ndimage")
    square = np.array([[0.0, 10.0], [20.0, 30.0]]).astype(dtype)
    out = ndimage.map_coordinates(square, [[0.5], [0.5]], order=1)
    return out.dtype == square.dtype and close(out, 15)


def half_opencv(dtype: str) -> bool:
    """Expect the mean of the square, in half precision."""
    cv2 = importlib.import_module("cv2")
    square = np.array([[0.0, 10.0], [20.0, 30.0]]).astype(dtype)
    place = np.full((1, 1), 0.5, dtype=np.float32)
    out = cv2.remap(square, place, place, cv2.INTER_LINEAR)
    return out.dtype == square.dtype and close(out, 15)


def nan_torch(library: str) -> bool:
    """Expect NaN at a place that is NaN, within zeros and within the border's pixels."""
    sample = SAMPLERS[library]()
    image, grid = _square()
    options = ({"padding_mode": mode, "align_corners": False} for mode in ("zeros", "border"))
    return all(bool(sample(image, grid * np.nan, **o).isnan().all()) for o in options)


def nan(read: Read) -> bool:
    """Expect NaN at a place that is NaN, within zeros and within the border's pixels."""
    rows = _rows([1, 2, 4, 8])
    return all(
        bool(np.isnan(read(rows, [np.nan], 2, "bilinear", mode)).all())
        for mode in ("zeros", "border")
    )


def one_call(library: str) -> bool:
    """Expect the mirror image of the square, by a matrix."""
    mirror = np.array([[-1.0, 0, 1], [0, 1, 0]])
    image = np.array([[0.0, 10], [20, 30]])
    if library == "stnlib":
        theta = np.array([[[-1.0, 0, 0], [0, 1, 0]]])
        found = stnlib.affine_sample(image[None, None], theta, (2, 2))[0, 0]
    elif library == "SciPy":
        ndimage = importlib.import_module("scipy.ndimage")
        found = ndimage.affine_transform(image, mirror[::-1][:, [1, 0, 2]], order=1)
    elif library == "OpenCV":
        cv2 = importlib.import_module("cv2")
        found = cv2.warpAffine(image.astype(np.float32), mirror, (2, 2))
    else:
        torch = importlib.import_module("torch")
        matrix, tensor = torch.from_numpy(mirror)[None], torch.from_numpy(image)[None, None]
        found = _torch_warp(library)(tensor, matrix)[0, 0]
    return close(found, image[:, ::-1])


def exported(library: str) -> bool:
    """Expect the right number from onnxruntime, for another grid than the one that was exported."""
    torch = importlib.import_module("torch")
    runtime = importlib.import_module("onnxruntime")
    sample = partial(SAMPLERS[library](), align_corners=False)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, aloud

    class Sampler(torch.nn.Module):  # type: ignore
        def forward(self, image: Any, grid: Any) -> Any:
            return sample(image, grid)

    image, grid = _square("float32")
    program = torch.onnx.export(Sampler(), (image, grid), dynamo=True, verbose=False)
    session = runtime.InferenceSession(program.model_proto.SerializeToString())
    names = [i.name for i in session.get_inputs()]
    values = [image.numpy(), grid.numpy() + np.array([0.25, 0], dtype=np.float32)]
    return close(session.run(None, dict(zip(names, values, strict=True)))[0], 17.5)


def both_arrays(library: str) -> bool:
    """Expect an array for arrays and a tensor for tensors."""
    torch = importlib.import_module("torch")
    image, grid = _square()
    x = y = np.array([[0.5]])
    if library == "SciPy":
        return _scipy_takes_tensors()
    if library == "OpenCV":
        cv2 = importlib.import_module("cv2")
        found = cv2.remap(image[0, 0], torch.tensor(x), torch.tensor(y), cv2.INTER_LINEAR)
        return isinstance(found, torch.Tensor)
    sample = stnlib.grid_sample if library == "stnlib" else SAMPLERS[library]()
    tensor, array = sample(image, grid), sample(image.numpy(), grid.numpy())
    kinds = isinstance(tensor, torch.Tensor) and isinstance(array, np.ndarray)
    return kinds and close(tensor, 15) and close(array, 15)


def _scipy_takes_tensors() -> bool:
    """Ask SciPy in a process of its own: a variable, set before the import, switches its array API on."""
    code = (
        "import torch; from scipy import ndimage; image = torch.tensor([[0.0, 10.0], [20.0, 30.0]]);"
        "out = ndimage.map_coordinates(image, torch.tensor([[0.5], [0.5]]), order=1);"
        "print(isinstance(out, torch.Tensor) and abs(float(out[0]) - 15) < 1e-5)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() == "True"


# The table


def _read_by_all(ask: Callable[[Read], bool], cupy: Cited) -> dict[str, Probe | Cited]:
    return {name: Probe(partial(ask, read)) for name, read in READERS.items()} | {"CuPy": cupy}


def _tried(
    ask: Callable[..., bool], *libraries: str, modules: tuple[str, ...] = (), **arguments: Any
) -> dict[str, Probe]:
    return {name: Probe(partial(ask, name, **arguments), modules) for name in libraries}


def _autograd(
    ask: Callable[..., bool], modules: tuple[str, ...] = ("torch",), **arguments: Any
) -> dict[str, Probe | Cited]:
    """Ask the three libraries of PyTorch; the others are no part of it."""
    return {
        **_tried(ask, "stnlib", "PyTorch", "kornia", modules=modules, **arguments),
        "SciPy": Cited(False, SCIPY_LIST),
        "CuPy": Cited(False, CUPY_LIST),
        "OpenCV": Cited(False, OPENCV),
    }


YES, NO = Cited(True, CUPY_MAP), Cited(False, CUPY_MAP)
NOT_SAID = Cited(None, CUPY_MAP)

FEATURES = [
    Feature("Kernels", "bilinear", _read_by_all(bilinear, YES)),
    Feature("Kernels", "bicubic (Keys)", _read_by_all(bicubic, NO)),
    Feature("Kernels", "cubic B-spline, prefiltered", _read_by_all(bspline, YES)),
    Feature("Kernels", "a kernel of one's own", _read_by_all(own_kernel, NO)),
    *(
        Feature("Beyond the image", name, _read_by_all(partial(padding, mode=mode), YES))
        for mode, name in {
            "zeros": "zeros",
            "border": "the border's pixel",
            "reflection": "mirrored at the edges",
            "mirror": "mirrored at the edge pixels' centres",
            "wrap": "wrapped around",
        }.items()
    ),
    Feature(
        "Beyond the image", "a fill value", _read_by_all(partial(fill, values=(10.0,)), YES)
    ),
    Feature(
        "Beyond the image",
        "a fill value for each channel",
        _read_by_all(partial(fill, values=(10.0, 20.0, 30.0)), NO),
    ),
    Feature(
        "Volumes",
        "trilinear",
        {
            **_tried(trilinear, "stnlib", "PyTorch", "kornia", "SciPy"),
            "CuPy": YES,
            "OpenCV": Cited(False, OPENCV),
        },
    ),
    Feature(
        "Volumes",
        "cubic, by Keys or by a spline",
        {
            **_tried(tricubic, "stnlib", "PyTorch", "kornia", "SciPy"),
            "CuPy": YES,
            "OpenCV": Cited(False, OPENCV),
        },
    ),
    Feature(
        "Coordinates",
        "in pixels",
        {
            **{name: Probe(partial(bilinear, READERS[name])) for name in READERS},
            "PyTorch": Cited(False, TORCH),
            "CuPy": YES,
        },
    ),
    Feature(
        "Coordinates",
        "normalised",
        {
            "stnlib": Probe(partial(normalised, _normalised_stnlib)),
            "PyTorch": Probe(partial(normalised, _normalised_torch)),
            "kornia": Probe(partial(normalised, _normalised_kornia)),
            "SciPy": Cited(False, SCIPY_MAP),
            "CuPy": NO,
            "OpenCV": Cited(False, OPENCV),
        },
    ),
    Feature(
        "Coordinates",
        "float64 with a float32 image, exact to a millionth of a pixel",
        {**_tried(precision, *READERS), "CuPy": NOT_SAID},
    ),
    Feature(
        "Coordinates",
        "NaN gives NaN",
        {
            "stnlib": Probe(partial(nan, read_stnlib)),
            **_tried(nan_torch, "PyTorch", "kornia"),
            "SciPy": Probe(partial(nan, read_scipy)),
            "CuPy": NOT_SAID,
            "OpenCV": Probe(partial(nan, read_opencv)),
        },
    ),
    Feature(
        "Sampling",
        "one call from matrix to output",
        {
            **_tried(one_call, "stnlib", "kornia", "SciPy", "OpenCV"),
            "PyTorch": Cited(False, TORCH),
            "CuPy": Cited(True, CUPY_AFFINE),
        },
    ),
    Feature(
        "Sampling",
        "antialiasing that follows the grid",
        {**_tried(antialiased, *READERS), "CuPy": Cited(False, CUPY_AFFINE)},
    ),
    Feature("Derivatives", "gradient of the image", _autograd(gradient, of="image")),
    Feature("Derivatives", "gradient of the grid", _autograd(gradient, of="grid")),
    Feature("Derivatives", "gradient of the matrix", _autograd(gradient_of_theta)),
    Feature("Derivatives", "double backward", _autograd(double_backward)),
    Feature("Derivatives", "forward mode", _autograd(forward_mode)),
    Feature("Around it", "torch.vmap", _autograd(vmap)),
    Feature("Around it", "torch.compile, one graph", _autograd(compiled)),
    Feature(
        "Around it",
        "export to ONNX",
        _autograd(exported, modules=("torch", "onnx", "onnxscript", "onnxruntime")),
    ),
    *(
        Feature(
            "Around it",
            f"{dtype} images",
            {
                **_tried(half, "stnlib", "PyTorch", "kornia", modules=("torch",), dtype=dtype),
                "SciPy": Probe(partial(half_scipy, dtype)),
                "CuPy": NOT_SAID,
                "OpenCV": Probe(partial(half_opencv, dtype)),
            },
        )
        for dtype in ("float16", "bfloat16")
    ),
    Feature(
        "Around it",
        "NumPy arrays and PyTorch tensors, one function",
        {**_tried(both_arrays, *READERS, modules=("torch",)), "CuPy": NO},
    ),
]


def cell(
    library: str, question: Probe | Cited, stored: dict[str, Any] | None
) -> dict[str, Any]:
    """Answer a cell: by trying, by citing, or, where what it needs is not installed, as ``stored``.

    Parameters
    ----------
    library : str
    question : Probe or Cited
    stored : dict or None
        What the record holds.

    Returns
    -------
    dict
        ``answer`` is true, false or null, for a page that does not say; ``how`` is "run" or "cited"; ``source`` is the
        page's address, or null.
    """
    if isinstance(question, Cited):
        return {"answer": question.answer, "how": "cited", "source": question.source}
    if can_try(library, question):
        return {"answer": try_it(question), "how": "run", "source": None}
    if stored is None:
        raise ModuleNotFoundError(
            f"{library} or what its test needs is not installed, and the record has no answer to keep"
        )
    return stored


def version(library: str, stored: str | None) -> str | None:
    """Return the version of a library that is installed, else the one that is stored."""
    if library == "stnlib":
        return stnlib.__version__
    try:
        return importlib.metadata.version(PACKAGES[library]) if PACKAGES[library] else None
    except importlib.metadata.PackageNotFoundError:
        return stored


def measure(stored: dict[str, Any]) -> dict[str, Any]:
    """Answer the whole table.

    Parameters
    ----------
    stored : dict
        The record so far; may be empty.

    Returns
    -------
    dict
        The record, without its command.
    """
    known = {row["name"]: row["cells"] for row in stored.get("features", [])}
    versions = stored.get("versions", {})
    return {
        "environment": records.environment(),
        "versions": {name: version(name, versions.get(name)) for name in PACKAGES},
        "features": [
            {
                "group": row.group,
                "name": row.name,
                "cells": {
                    library: cell(
                        library, row.cells[library], known.get(row.name, {}).get(library)
                    )
                    for library in PACKAGES
                },
            }
            for row in FEATURES
        ],
    }


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m stnlib.experiments.features", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--output", type=Path, default=Path("results/features.json"))
    options = parser.parse_args(arguments)
    given = " ".join(sys.argv[1:] if arguments is None else arguments)
    stored = records.read(options.output) if options.output.exists() else {}
    record: dict[str, Any] = {
        "command": f"python -m stnlib.experiments.features {given}".strip()
    }
    record |= measure(stored)
    records.write(options.output, record)
    print(f"{'':62}" + "".join(f"{library:>9}" for library in PACKAGES))
    for row in record["features"]:
        marks = (
            {True: "yes", False: "no", None: "?"}[row["cells"][library]["answer"]]
            for library in PACKAGES
        )
        print(f"{row['name']:62}" + "".join(f"{mark:>9}" for mark in marks))


if __name__ == "__main__":
    main()
