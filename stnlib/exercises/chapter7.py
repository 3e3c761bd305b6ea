"""Exercises of chapter 7: the paper's first table."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ._judges import Case, Exercise, Mistake, choice, function, parts, value

# 7.1 ------------------------------------------------------------------------------------------------------------------


def _seen(ours: int = 55_000) -> list[float]:
    return [5_600 * 256 / ours, 150_000 * 256 / 60_000]


def _seen_mistakes() -> Iterable[Mistake]:
    yield "Ours have held some digits out, and learn from the rest.", _seen(60_000)
    yield "These are the steps for one digit; a step takes a batch.", [v / 256 for v in _seen()]
    yield "The two have changed places.", _seen()[::-1]


# 7.2 ------------------------------------------------------------------------------------------------------------------


def _layers(biases: bool = True, channels: int = 56, side: int = 10) -> list[float]:
    found = [
        sum(9 * 9 + biases for _ in range(56)),
        sum(7 * 7 * channels + biases for _ in range(104)),
        sum(side * side * 104 + biases for _ in range(10)),
    ]
    return [*map(float, found), float(sum(found))]


def _layer_mistakes() -> Iterable[Mistake]:
    yield (
        "The biases are missing: one for each filter, and for each class.",
        _layers(biases=False),
    )
    yield (
        "A filter of the second convolution has weights for each of the 56 channels.",
        _layers(channels=1),
    )
    yield (
        "The classifier sees what is left after two convolutions without a border and two poolings.",
        _layers(side=15),
    )
    yield (
        "The classifier sees what is left after two convolutions without a border and two poolings.",
        _layers(side=60),
    )


# 7.3 ------------------------------------------------------------------------------------------------------------------


def _deviations(both: bool = True) -> float:
    variance = 0.007 * 0.993 + both * 0.008 * 0.992
    return 0.001 / math.sqrt(variance / 10_000)


# 7.4 ------------------------------------------------------------------------------------------------------------------


def _mcnemar(b: int, c: int) -> float:
    n = b + c
    heads = np.arange(n + 1)
    chance = np.array([float(math.comb(n, k)) for k in heads]) / 2.0**n
    return float((b - n / 2) / np.sqrt(np.sum(chance * (heads - n / 2) ** 2)))


def _digits() -> Iterable[Case]:
    for b, c, about in (
        (30, 10, "where the second network is better"),
        (10, 30, "where the first network is better"),
        (7, 7, "for a draw"),
        (3, 0, "where c is 0"),
    ):
        yield Case(about, (b, c))


# 7.7 ------------------------------------------------------------------------------------------------------------------


def _best(tests: int = 10, digits: int = 10_000, rate: float = 0.009) -> float:
    """Return the mean of the least of several binomial numbers, in per cent: a sum, and no simulation."""
    log_chance, above, mean = digits * math.log1p(-rate), 1.0, 0.0
    for k in range(400):
        above -= math.exp(log_chance)
        mean += max(above, 0.0) ** tests
        log_chance += math.log((digits - k) / (k + 1)) + math.log(rate / (1 - rate))
    return 100 * mean / digits


EXERCISES = [
    Exercise(
        "two numbers: how many times our runs went through the digits, and how many times the paper's",
        value(_seen, mistakes=_seen_mistakes, names=("ours", "the paper's"), rtol=0.005),
    ),
    Exercise(
        "four numbers of parameters: the first convolution, the second, the classifier and all together",
        value(
            _layers,
            mistakes=_layer_mistakes,
            names=("the first convolution", "the second", "the classifier", "the sum"),
        ),
    ),
    Exercise(
        "two numbers: the standard deviations, to two decimals, and the digits, to a hundred",
        parts(
            {
                "the standard deviations": value(
                    _deviations,
                    mistakes=lambda: [
                        (
                            "Both rates are uncertain, and their variances add.",
                            _deviations(False),
                        ),
                        (
                            "Variances add, and not standard deviations.",
                            0.001
                            / (math.sqrt(0.007 * 0.993 / 1e4) + math.sqrt(0.008 * 0.992 / 1e4)),
                        ),
                        ("This is the square of it.", _deviations() ** 2),
                    ],
                    rtol=0.01,
                ),
                "the digits": value(
                    lambda: 10_000 * (2 / _deviations()) ** 2,
                    mistakes=lambda: [
                        (
                            "Twice the deviations take more than twice the digits: the root.",
                            10_000 * 2 / _deviations(),
                        ),
                        ("This is for one standard deviation.", 10_000 / _deviations() ** 2),
                    ],
                    rtol=0.002,
                ),
            }
        ),
    ),
    Exercise(
        "a function deviations(b, c) that returns how many standard deviations b is above what a coin gives",
        function(
            _mcnemar,
            _digits,
            mistakes=[
                (
                    "Half of it: the standard deviation of n coins is half the root of n.",
                    lambda b, c: _mcnemar(b, c) / 2,
                ),
                (
                    "Twice too large: b lies (b - c)/2 above the mean.",
                    lambda b, c: 2 * _mcnemar(b, c),
                ),
                (
                    "This is its square, the statistic of the test; the sign is lost.",
                    lambda b, c: _mcnemar(b, c) ** 2,
                ),
                ("The sign is lost.", lambda b, c: abs(_mcnemar(b, c))),
            ],
        ),
    ),
    Exercise("a measurement"),
    Exercise("a measurement"),
    Exercise(
        'a number and a word: what is reported on average, in per cent to two decimals, and whether it comes "closer" '
        'to the truth or goes "further" away',
        parts(
            {
                "what is reported": value(
                    _best,
                    mistakes=lambda: [
                        ("The mean of the ten is not what is reported.", 0.9),
                        ("This is a number of digits; per cent are asked for.", 100 * _best()),
                        (
                            "This is about the worst of ten.",
                            1.8 - _best(),
                        ),
                    ],
                    rtol=0.008,
                ),
                "the ten alike": choice(
                    "closer",
                    {
                        "further": "If all ten made the same mistakes, what would be left to choose from?"
                    },
                ),
            }
        ),
    ),
    Exercise("an experiment"),
    Exercise("research"),
]
