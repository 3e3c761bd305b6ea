"""Training: the loop of chapter 5 and what it measures."""

from .._extras import require

require("torch", "torch", "stnlib.training")

from .loop import Schedule, error_rate, train  # noqa: E402

__all__ = ["Schedule", "error_rate", "train"]
