"""Spatial transformers from the ground up: grids, sampling and their gradients, on NumPy, CuPy and PyTorch arrays."""

from . import transforms
from .coordinates import normalise, pixel_centres, pixels_per_unit, unnormalise
from .sampling import affine_grid, affine_grid_vjp, grid_sample, grid_sample_vjp

__version__ = "0.1.0"
__all__ = [
    "affine_grid",
    "affine_grid_vjp",
    "grid_sample",
    "grid_sample_vjp",
    "normalise",
    "pixel_centres",
    "pixels_per_unit",
    "transforms",
    "unnormalise",
]
