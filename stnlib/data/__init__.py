"""Data: MNIST, which is part of the package, and the paper's distortions of it."""

from . import distortions, mnist

__all__ = ["distortions", "mnist"]
