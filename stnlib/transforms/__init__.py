"""Transforms: matrices and their algebra, conversions, and the families that a network regresses.

Convention: a ``theta`` holds parameters of a family, or is a matrix, shape (..., 2, 3); it maps normalised coordinates
(x, y) of the output to those of the input. x points to the right and y down; angles are in radians, and a positive one
turns x towards y. In space there is a z, and matrices are (..., 3, 4).
"""

from .algebra import (
    apply,
    compose,
    exponential,
    from_homogeneous,
    inverse,
    logarithm,
    to_homogeneous,
)
from .bases import Basis, BSpline, DenseFlow, PiecewiseAffine, ThinPlateSpline
from .composition import Composition
from .conversions import box_to_theta, pixel_to_theta, theta_to_box, theta_to_pixel
from .families import Family
from .fitting import fit
from .flows import PiecewiseAffineVelocity, StationaryVelocity
from .linear import (
    Affine,
    Attention,
    ExponentialAffine,
    Factored,
    Linear,
    Rigid,
    Similarity,
    Translation,
)
from .matrices import affine, rigid, rotation, scale, shear, similarity, translation
from .projective import FourCorners, Projective

__all__ = [
    "Affine",
    "Attention",
    "BSpline",
    "Basis",
    "Composition",
    "DenseFlow",
    "ExponentialAffine",
    "Factored",
    "Family",
    "FourCorners",
    "Linear",
    "PiecewiseAffine",
    "PiecewiseAffineVelocity",
    "Projective",
    "Rigid",
    "Similarity",
    "StationaryVelocity",
    "ThinPlateSpline",
    "Translation",
    "affine",
    "apply",
    "box_to_theta",
    "compose",
    "exponential",
    "fit",
    "from_homogeneous",
    "inverse",
    "logarithm",
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
