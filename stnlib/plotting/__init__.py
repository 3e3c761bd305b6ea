"""The figures of the book: transparent, and in colours that read on a light and on a dark page."""

from .._extras import require

require("matplotlib", "plot", "stnlib.plotting")

from .images import draw_grid, frame, show_image, show_images, show_values, show_warp  # noqa: E402
from .source import show_cuda, show_source  # noqa: E402
from .style import BLUE, GREEN, GREY, PURPLE, RED, use_style  # noqa: E402

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "PURPLE",
    "RED",
    "draw_grid",
    "frame",
    "show_cuda",
    "show_image",
    "show_images",
    "show_source",
    "show_values",
    "show_warp",
    "use_style",
]
