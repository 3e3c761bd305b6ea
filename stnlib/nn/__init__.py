"""Spatial transformers for PyTorch: functions with gradients, the modules, and the paper's networks."""

from .._extras import require

require("torch", "torch", "stnlib.nn")

from . import functional, models  # noqa: E402
from .learned_basis import LearnedBasis  # noqa: E402
from .spatial_transformer import SpatialTransformer, initialise_identity, total_matrix  # noqa: E402

__all__ = [
    "LearnedBasis",
    "SpatialTransformer",
    "functional",
    "initialise_identity",
    "models",
    "total_matrix",
]
