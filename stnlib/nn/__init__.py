"""Spatial transformers for PyTorch: functions with gradients, the modules, and the paper's networks."""

from .._extras import require

require("torch", "torch", "stnlib.nn")

from . import functional, models  # noqa: E402
from .learned_basis import LearnedBasis  # noqa: E402
from .spatial_transformer import (  # noqa: E402
    SpatialTransformer,
    initialise_identity,
    parameter_groups,
    total_matrix,
)
from .weights import load_weights, save_weights  # noqa: E402

__all__ = [
    "LearnedBasis",
    "SpatialTransformer",
    "functional",
    "initialise_identity",
    "load_weights",
    "models",
    "parameter_groups",
    "save_weights",
    "total_matrix",
]
