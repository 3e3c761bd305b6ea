"""Exercises of chapter 5: a spatial transformer in a network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .._extras import require
from ._judges import (
    Case,
    Exercise,
    Wrong,
    choice,
    compare,
    function,
    kind,
    parts,
    some_of,
    value,
)

# 5.1 ------------------------------------------------------------------------------------------------------------------


def _judge_network(answer: Any) -> None:
    torch = require("torch", "torch", "exercise 5.1")
    from ..nn import SpatialTransformer

    if not isinstance(answer, torch.nn.Module):
        raise Wrong(f"It is {kind(answer)}, and a network was expected, a torch.nn.Module.")
    found = [each for each in answer.modules() if isinstance(each, SpatialTransformer)]
    if len(found) != 1:
        raise Wrong(f"It has {len(found)} SpatialTransformer modules, and one was expected.")
    (transformer,) = found
    pictures = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(51))
    seen: list[Any] = []
    hook = transformer.register_forward_hook(lambda _, given, out: seen.extend((given[0], out)))
    try:
        score = answer(pictures)
    except Exception as error:
        raise Wrong(
            f"It raises {type(error).__name__} for four images of 3 × 64 × 64: {str(error).splitlines()[0][:100]}"
        ) from None
    finally:
        hook.remove()
    if not seen:
        raise Wrong("The network never calls its transformer.")
    given, out = seen[:2]
    if not torch.equal(given, pictures):
        raise Wrong("The transformer is to come first, and to look at the image itself.")
    if out.shape != (4, 3, 32, 32):
        raise Wrong(
            f"The transformer's output has the shape {tuple(out.shape)}, and (4, 3, 32, 32) was expected."
        )
    half = torch.nn.functional.interpolate(pictures, size=(32, 32), mode="bilinear")
    if not torch.allclose(out, half, atol=1e-5):
        raise Wrong(
            "It does not start as PyTorch's resampling: θ is not the identity at the start."
        )
    parameters = list(transformer.localisation.parameters())
    if not score.requires_grad:
        raise Wrong("Nothing in it can be trained: its output has no gradient.")
    slopes = torch.autograd.grad(score.sin().sum(), parameters, allow_unused=True)
    if not any(slope is not None and bool(slope.abs().max() > 0) for slope in slopes):
        raise Wrong("Its localisation network receives no gradient.")


# 5.2 ------------------------------------------------------------------------------------------------------------------

_LOCALISATION = (1764, 32, 32, 32, 6)


def _count(biases: bool = True, sizes: tuple[int, ...] = _LOCALISATION) -> float:
    return float(sum((a + biases) * b for a, b in itertools.pairwise(sizes)))


def _judge_share(answer: Any) -> None:
    torch = require("torch", "torch", "exercise 5.2")
    from ..nn.models import STFCN, count_parameters

    with torch.random.fork_rng(devices=[]):  # the reader's random numbers stay as they are
        share = 100 * _count() / count_parameters(STFCN())
    mistakes = [
        ("This is a fraction, and per cent were asked for.", share / 100),
        ("This is the share of the rest.", 100 - share),
    ]
    compare(answer, share, mistakes, rtol=0.5 / share)  # to a whole number


# 5.4 ------------------------------------------------------------------------------------------------------------------


def _attention(theta: Any, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Compute the grid pixel by pixel."""
    h, w = size
    grid = np.zeros((len(theta), h, w, 2))
    for n, (s, tx, ty) in enumerate(np.asarray(theta, float)):
        for i in range(h):
            for j in range(w):
                y, x = (
                    2 * k / (m - 1) - 1 if align_corners else (2 * k + 1) / m - 1
                    for k, m in ((i, h), (j, w))
                )
                grid[n, i, j] = s * x + tx, s * y + ty
    return grid


def _windows() -> Iterable[Case]:
    torch = require("torch", "torch", "exercise 5.4")
    theta = torch.tensor(
        [[1.0, 0.0, 0.0], [0.5, 0.3, -0.2], [1.4, -0.1, 0.6]], dtype=torch.float64
    )
    yield Case("for square images", (theta, (5, 5), False))
    yield Case("for images of 4 × 7 pixels", (theta, (4, 7), False))
    yield Case("with align_corners=True", (theta, (4, 7), True))


def _adapt(family: Any) -> Callable[[Any, tuple[int, int], bool], Any]:
    def grid(theta: Any, size: tuple[int, int], align_corners: bool) -> Any:
        return family.grid(theta, size, align_corners=align_corners)

    return grid


def _judge_attention(answer: Any) -> None:
    family = answer() if isinstance(answer, type) else answer
    for name in ("num_parameters", "identity", "grid"):
        if not hasattr(family, name):
            raise Wrong(f"The family has no {name}.")
    if family.num_parameters != 3:
        raise Wrong(f"It has {family.num_parameters} parameters, and s, t_x and t_y are three.")
    try:
        compare(
            family.identity(),
            [1.0, 0.0, 0.0],
            [("With a scale of 0 the window is a point.", [0.0] * 3)],
        )
    except Wrong as wrong:
        raise Wrong(f"identity(): {wrong}") from None

    function(
        _attention,
        _windows,
        mistakes=[
            (
                "It ignores align_corners.",
                lambda theta, size, corners: _attention(theta, size, False),
            ),
            (
                "The shift is scaled, too: θ is (s 0 t_x; 0 s t_y), and adds it at the end.",
                lambda theta, size, corners: _attention(
                    np.asarray(theta) * np.c_[np.ones(3), theta[:, :1], theta[:, :1]],
                    size,
                    corners,
                ),
            ),
            (
                "x and y of the shift have changed places.",
                lambda theta, size, corners: _attention(theta[:, [0, 2, 1]], size, corners),
            ),
            (
                "x and y of the grid have changed places.",
                lambda theta, size, corners: _attention(theta, size, corners)[..., ::-1],
            ),
        ],
    )(_adapt(family))


# 5.5 ------------------------------------------------------------------------------------------------------------------


def _gradient_at_zero(
    grad_output: np.ndarray, slope: Any, alike: bool = False, corners: bool = False
) -> np.ndarray:
    h, w = grad_output.shape
    gradient = np.zeros((2, 3))
    for i in range(h):
        for j in range(w):
            x, y = (2 * j + 1) / w - 1, (2 * i + 1) / h - 1
            if corners:
                x, y = 2 * j / (w - 1) - 1, 2 * i / (h - 1) - 1
            target = np.array([0.0, 0.0, 1.0] if alike else [x, y, 1.0])
            gradient += grad_output[i, j] * np.outer(slope, target)
    return gradient


def _losses() -> Iterable[Case]:
    rng = np.random.default_rng(55)
    slope = np.array([0.7, -1.3])
    yield Case("for a loss that treats all pixels alike", (np.full((4, 4), 0.5), slope))
    yield Case("where the middle is flat", (rng.normal(size=(4, 4)), np.zeros(2)))
    yield Case("for a loss that tells pixels apart", (rng.normal(size=(4, 4)), slope))
    yield Case("for an output of 3 × 5 pixels", (rng.normal(size=(3, 5)), slope))


EXERCISES = [
    Exercise("a network, a torch.nn.Module, for images of 3 × 64 × 64", _judge_network),
    Exercise(
        "two numbers: how many, and the share of the whole network in per cent, to a whole number",
        parts(
            {
                "the count": value(
                    _count,
                    mistakes=lambda: [
                        (
                            "The biases are missing: one for each output of a layer.",
                            _count(biases=False),
                        ),
                        (
                            "One of the three layers of 32 is missing.",
                            _count(sizes=(1764, 32, 32, 6)),
                        ),
                        ("One layer of 32 too many.", _count(sizes=(1764, 32, 32, 32, 32, 6))),
                    ],
                ),
                "the share": _judge_share,
            }
        ),
    ),
    Exercise(
        'a word: the gradient of what is not needed, "input", "grid" or "theta"',
        choice(
            "input",
            {
                "grid": "The grid's gradient is how θ's comes about, and the localisation network learns from that.",
                "theta": "θ's gradient is all that the localisation network learns from.",
            },
        ),
    ),
    Exercise("a family such as Attention, the class or an instance of it", _judge_attention),
    Exercise(
        "a function gradient_at_zero(grad_output, slope) that returns θ's gradient, of shape (2, 3)",
        function(
            _gradient_at_zero,
            _losses,
            mistakes=[
                (
                    "Right for a loss that treats all pixels alike. One that tells left from right weights the "
                    "slope with x, and does not cancel.",
                    lambda g, slope: _gradient_at_zero(g, slope, alike=True),
                ),
                (
                    "The target coordinates are those of align_corners=True.",
                    lambda g, slope: _gradient_at_zero(g, slope, corners=True),
                ),
                (
                    "It takes the mean over the pixels; the chain rule adds.",
                    lambda g, slope: _gradient_at_zero(g, slope) / g.size,
                ),
            ],
        ),
    ),
    Exercise("an experiment and a reason"),
    Exercise(
        "a set of words: the parts of the state on which the end depends",
        some_of(
            {"network", "optimiser", "steps"},
            {
                "random": "Does anything in this network draw a random number while it trains?",
                "random_gpus": "Does anything in this network draw a random number while it trains?",
            },
        ),
    ),
    Exercise("a measurement"),
    Exercise("research"),
]
