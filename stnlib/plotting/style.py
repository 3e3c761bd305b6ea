"""Colours and defaults of every figure."""

from __future__ import annotations

import matplotlib as mpl
from cycler import cycler

# Each has a contrast of at least 3 to 1 with a white page and with the dark theme's, and they differ for colour-blind
# readers too (after Okabe and Ito).
BLUE = "#2f83c6"
RED = "#d9622b"
GREEN = "#1a9367"
PURPLE = "#b36aa0"
GREY = "#7d838a"


def use_style() -> None:
    """Set matplotlib's defaults for the book: call it once, at the top of a chapter."""
    mpl.rcParams.update(
        {
            "axes.edgecolor": GREY,
            "axes.facecolor": "none",
            "axes.grid": False,
            "axes.labelcolor": GREY,
            "axes.prop_cycle": cycler(color=[BLUE, RED, GREEN, PURPLE, GREY]),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlecolor": GREY,
            "axes.titlesize": 11,
            "figure.constrained_layout.use": True,
            "figure.dpi": 120,
            "figure.facecolor": "none",
            "font.size": 11,
            "grid.color": GREY,
            "image.cmap": "gray",
            "legend.frameon": False,
            "legend.labelcolor": GREY,
            "lines.linewidth": 2,
            "savefig.facecolor": "none",
            "text.color": GREY,
            "xtick.color": GREY,
            "ytick.color": GREY,
        }
    )
