"""Training: the loop of chapter 5 and what it measures."""

from .._extras import require

require("torch", "torch", "stnlib.training")

from .digits import DistortedDigits, distorted, split  # noqa: E402
from .fit import fit  # noqa: E402
from .loop import Trainer, error_rate, train  # noqa: E402
from .schedule import Schedule  # noqa: E402
from .watch import TrainingWarning  # noqa: E402

__all__ = [
    "DistortedDigits",
    "Schedule",
    "Trainer",
    "TrainingWarning",
    "distorted",
    "error_rate",
    "fit",
    "split",
    "train",
]
