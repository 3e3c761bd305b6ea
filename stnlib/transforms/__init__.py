"""Transforms of the plane: matrices and their algebra, conversions, and the families that a network regresses.

Convention: a ``theta`` is a matrix, shape (..., 2, 3), between normalised coordinates (x, y), from the output to the
input. x points to the right and y down; angles are in radians, and a positive one turns x towards y.
"""

from .algebra import apply, compose, from_homogeneous, inverse, to_homogeneous
from .conversions import box_to_theta, pixel_to_theta, theta_to_box, theta_to_pixel
from .families import Affine
from .matrices import affine, rigid, rotation, scale, shear, similarity, translation

__all__ = [
    "Affine",
    "affine",
    "apply",
    "box_to_theta",
    "compose",
    "from_homogeneous",
    "inverse",
    "pixel_to_theta",
    "rigid",
    "rotation",
    "scale",
    "shear",
    "similarity",
    "theta_to_box",
    "theta_to_pixel",
    "to_homogeneous",
    "translation",
]
