"""Spatial transformers from the ground up: grids, sampling and their gradients, on NumPy, CuPy and PyTorch arrays."""

import importlib
from typing import Any

from . import transforms
from .coordinates import normalise, pixel_centres, pixels_per_unit, unnormalise
from .sampling import (
    affine_grid,
    affine_grid_vjp,
    affine_sample,
    affine_sample_jvp,
    affine_sample_vjp,
    grid_sample,
    grid_sample_jvp,
    grid_sample_vjp,
)

__version__ = "0.3.0"
__all__ = [
    "affine_grid",
    "affine_grid_vjp",
    "affine_sample",
    "affine_sample_jvp",
    "affine_sample_vjp",
    "grid_sample",
    "grid_sample_jvp",
    "grid_sample_vjp",
    "normalise",
    "pixel_centres",
    "pixels_per_unit",
    "transforms",
    "unnormalise",
]

_ON_DEMAND = ("data", "exercises", "nn", "plotting", "training")


def __getattr__(name: str) -> Any:
    """Import a part that needs more than NumPy when it is first asked for."""
    if name in _ON_DEMAND:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ON_DEMAND])
