"""Spatial transformers for PyTorch: functions with gradients, the module, and the paper's networks."""

from .._extras import require

require("torch", "torch", "stnlib.nn")

from . import functional, models  # noqa: E402
from .spatial_transformer import SpatialTransformer, initialise_identity  # noqa: E402

__all__ = ["SpatialTransformer", "functional", "initialise_identity", "models"]
