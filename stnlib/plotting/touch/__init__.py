"""Figures that answer when touched: each a still picture that a script of its own in ``book/_static`` brings to life.

Without scripts the picture stays as it is. What a script computes, `stnlib` computes too, and a test compares them.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..._extras import require


def figure(name: str, told: dict[str, Any], panels: Sequence[str], says: str) -> Any:
    """Return a figure for a page, with what its script is told.

    Parameters
    ----------
    name : str
        Of the script, ``book/_static/<name>.js``.
    told : dict
        What the script needs to know, as JSON.
    panels : sequence of str
        HTML of the pictures, side by side where there is room (`panel`).
    says : str
        The line beneath them: what the still picture shows. The script keeps it up to date.

    Returns
    -------
    IPython.display.HTML
    """
    display = require("IPython.display", "book", f"touch.{name}")
    data = html.escape(json.dumps(told, ensure_ascii=False), quote=True)
    pictures = "\n".join(panels)
    return display.HTML(
        f'<div class="touch touch-{name}" data-touch="{data}">\n'
        f'<div class="touch-panels">\n{pictures}\n</div>\n'
        f'<p class="touch-says">{says}</p>\n</div>\n'
        f'<script defer src="../_static/{name}.js"></script>'
    )


def panel(title: str, picture: str) -> str:
    """Return a picture with its title above it."""
    return f'<div><span class="touch-title">{html.escape(title)}</span>{picture}</div>'


def svg(box: tuple[float, float, float, float], label: str, inside: str) -> str:
    """Return a drawing; ``box`` is left, top, width and height, and ``label`` is said to those who cannot see it."""
    view = " ".join(f"{x:g}" for x in box)
    return f'<svg viewBox="{view}" role="img" aria-label="{html.escape(label)}">{inside}</svg>'


def png(image: np.ndarray) -> str:
    """Return an image of values from 0 to 1, (H, W) or (3, H, W), as the address of a PNG that lies in the page."""
    pillow = require("PIL.Image", "book", "touch.png")
    pixels = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    file = io.BytesIO()
    pillow.fromarray(np.moveaxis(pixels, 0, -1) if pixels.ndim == 3 else pixels).save(
        file, "png"
    )
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
