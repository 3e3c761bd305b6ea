"""Exercises of chapter 4: kernels. Those that are written are run, by the emulator, on a processor."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np

from ._judges import (
    Case,
    Exercise,
    Mistake,
    Wrong,
    compare,
    function,
    kind,
    parts,
    to_array,
    value,
)

_MARGIN, _MARK = 64, -77  # around an array that a kernel writes, and what stands there

# Kernels --------------------------------------------------------------------------------------------------------------


class _Runner:
    """A kernel's source, compiled once for each order of its threads."""

    def __init__(self, code: Any, name: str) -> None:
        if not isinstance(code, str):
            raise Wrong(f"It is {kind(code)}, and the kernel's source was expected, a string.")
        if name not in code:
            raise Wrong(f"There is no kernel named {name} in it.")
        self.code, self.name = code, name

    def __call__(
        self,
        blocks: tuple[int, ...],
        threads: tuple[int, ...],
        *args: Any,
        seed: int | None = None,
    ) -> None:
        """Launch it; in an order of the threads drawn at random if there is a seed."""
        from ..engines import emulator

        options: dict[str, Any] = {} if seed is None else {"schedule": "random", "seed": seed}
        try:
            emulator.RawModule(self.code, **options).get_function(self.name)(
                blocks, threads, args
            )
        except emulator.NoCompilerError:
            raise
        except emulator.CompileError as error:
            first = next((x for x in str(error).splitlines() if "error" in x), "")
            said = first.partition("error:")[2].strip()[:120]
            raise Wrong(f"It does not compile. {said}") from None
        except TypeError as error:
            raise Wrong(f"Its arguments are not those of the exercise. {error}") from None
        except emulator.EmulatorError as error:
            raise Wrong(f"It cannot run: {str(error)[:120]}") from None


class _Output:
    """An array to write to, with marked memory on both sides."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, fill: float = _MARK) -> None:
        size = int(np.prod(shape))
        self._all = np.full(size + 2 * _MARGIN, _MARK, dtype)
        self.array = self._all[_MARGIN : _MARGIN + size].reshape(shape)
        self.array[...] = fill

    def check(self) -> None:
        """Raise `Wrong` if the margins are marked no longer."""
        if (self._all[:_MARGIN] != _MARK).any() or (self._all[-_MARGIN:] != _MARK).any():
            raise Wrong(
                "It writes beyond the end of the array: the last blocks hang over, and their threads need a check."
            )


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _diagnose(
    got: np.ndarray, expected: np.ndarray, about: str, mistakes: Iterable[Mistake] = ()
) -> None:
    try:
        compare(got, expected, list(mistakes), rtol=1e-5)
    except Wrong as wrong:
        raise Wrong(
            f"{about[0].upper()}{about[1:]}: {str(wrong)[0].lower()}{str(wrong)[1:]}"
        ) from None


# 4.1 ------------------------------------------------------------------------------------------------------------------


def _tiles() -> dict[tuple[int, int], list[tuple[int, int, int, int]]]:
    """Return for each pixel (column, row) who makes it: block, thread row, thread column, which of the four."""
    owners: dict[tuple[int, int], list[tuple[int, int, int, int]]] = {}
    for block_row in range(3):
        for block_column in range(4):
            for q in range(4):
                for ty in range(8):
                    for tx in range(32):
                        pixel = 32 * block_column + tx, 32 * block_row + 8 * q + ty
                        owners.setdefault(pixel, []).append(
                            (4 * block_row + block_column, ty, tx, q)
                        )
    return owners


def _who() -> list[float]:
    ((block, row, column, q),) = _tiles()[70, 45]
    return [12, block, row, column, q]


def _who_mistakes() -> Iterable[Mistake]:
    yield (
        "Each thread makes four pixels, so a block's tile is four times as high as its threads.",
        [36, 22, 5, 6, 0],
    )
    yield (
        "The block is counted down the columns; blocks are counted along the rows.",
        [12, 7, 5, 6, 1],
    )
    yield "Row and column of the thread have changed places.", [12, 6, 6, 5, 1]
    yield "A thread's four pixels lie eight rows apart, not below each other.", [12, 6, 3, 6, 1]


def _judge_hanging(answer: Any) -> None:
    got = to_array(list(answer) if isinstance(answer, set | range) else answer, (6,))
    width, height = 100, 70
    right = {
        owner[0]
        for (column, row), owners in _tiles().items()
        for owner in owners
        if column >= width or row >= height
    }
    said = set(np.ravel(got).astype(int).tolist())
    if said == right:
        return
    if more := said - right:
        raise Wrong(f"{'One block' if len(more) == 1 else f'{len(more)} blocks'} too many.")
    missing = right - said
    if missing == {b for b in right if b // 4 == 2 and b % 4 < 3}:
        raise Wrong("The last row of blocks hangs over, too.")
    raise Wrong(f"{'One is' if len(missing) == 1 else f'{len(missing)} are'} missing.")


# 4.2 ------------------------------------------------------------------------------------------------------------------


def _idle() -> list[float]:
    found: list[float] = []
    for n in (1_000, 1_000_000):
        blocks = next(b for b in range(n) if 256 * b >= n)
        found += [blocks, 256 * blocks - n]
    return found


def _idle_mistakes() -> Iterable[Mistake]:
    yield "Rounded down: then nobody makes the last elements.", [3, -232, 3906, -64]
    yield (
        "The blocks are right. The idle threads are those of all blocks, less the elements.",
        [4, 232, 3907, 64],
    )


# 4.3 ------------------------------------------------------------------------------------------------------------------


def _judge_mirror(code: Any) -> None:
    run = _Runner(code, "mirror")
    rng = np.random.default_rng(43)
    for (h, w), about in (
        ((8, 16), "for an image that blocks fill"),
        ((7, 19), "for an image of 7 × 19 pixels, whose last blocks hang over"),
        ((12, 5), "for an image of 12 × 5 pixels"),
    ):
        image, out = rng.random((h, w), np.float32), _Output((h, w), np.float32)
        before = image.copy()
        run((_ceil(w, 8), _ceil(h, 4)), (8, 4), out.array, image, np.int32(h), np.int32(w))
        out.check()
        if not np.array_equal(image, before):
            raise Wrong("It changes the image that it reads.")
        if (out.array == _MARK).any():
            raise Wrong(f"Some pixels are never written {about}.")
        _diagnose(
            out.array,
            image[:, ::-1],
            about,
            [
                ("it copies the image, and mirrors nothing.", image),
                ("It mirrors top to bottom.", image[::-1]),
                ("It mirrors along both axes.", image[::-1, ::-1]),
                ("All is one pixel off: the last pixel of a row is W - 1.", _off_by_one(image)),
            ],
        )


def _off_by_one(image: np.ndarray) -> np.ndarray:
    flat = np.append(image.ravel(), np.nan)
    h, w = image.shape
    return np.array([[flat[i * w + w - j] for j in range(w)] for i in range(h)])


# 4.4 ------------------------------------------------------------------------------------------------------------------


def _channels(strictly: bool = True, both_ways: bool = True) -> list[float]:
    found: list[float] = []
    for itemsize in (4, 2):
        for extra in (16, 40):
            for channels in range(1, 999):
                share = Fraction(extra, (1 + both_ways) * itemsize * channels + extra)
                if share < Fraction(1, 10) or (not strictly and share == Fraction(1, 10)):
                    break
            found.append(channels)
    return found


def _channel_mistakes() -> Iterable[Mistake]:
    yield (
        "At this number it is still a tenth, or more: one more is needed.",
        [n - 1 for n in _channels()],
    )
    yield "An image is read and another one written: both count.", _channels(both_ways=False)
    images = [int(np.floor(e * 10 / (2 * s))) + 1 for s in (4, 2) for e in (16, 40)]
    yield "A tenth of all bytes is asked for, and not a tenth of the images' bytes.", images
    a, b, c, d = _channels()
    yield "float32 and float16 have changed places.", [c, d, a, b]


# 4.5 ------------------------------------------------------------------------------------------------------------------


def _sectors() -> list[float]:
    def count(pixels: Iterable[tuple[int, int]]) -> int:
        return len({4 * (1024 * row + column) // 32 for row, column in pixels})

    four = [(0, 0), (0, 1), (1, 0), (1, 1)]
    warps = [[(0, k) for k in range(32)], [(k, 0) for k in range(32)]]
    found: list[float] = []
    for warp in warps:
        found += [count(warp), count((r + i, c + j) for r, c in warp for i, j in four)]
    return found


def _sector_mistakes() -> Iterable[Mistake]:
    a, b, c, d = _sectors()
    yield "Row and column have changed places.", [c, d, a, b]
    yield (
        "The reads are those of one pixel a thread; each thread reads four neighbours.",
        [a, a, c, c],
    )
    yield "The 33rd pixel of each row begins another sector.", [a, 8, c, 32]
    yield "A column needs one row more than there are threads.", [a, b, c, 32]
    yield (
        "Sectors are shared: those of two neighbouring threads are mostly the same.",
        [a, b, c, 64],
    )


# 4.6 ------------------------------------------------------------------------------------------------------------------


def _judge_turn(code: Any) -> None:
    run = _Runner(code, "turn")
    for seed in (None, 1, 2, 3):
        values = _Output((64,), np.float32)
        values.array[...] = np.arange(64)
        run((1,), (64,), values.array, seed=seed)
        values.check()
        if not np.array_equal(values.array, np.arange(64)[::-1]):
            if "__syncthreads" not in code:
                raise Wrong(
                    "There is no barrier in it, and in one order of the threads it fails."
                )
            raise Wrong(
                "In one order of the threads it fails: a thread reads the tile before another has written to it."
            )


# 4.7 ------------------------------------------------------------------------------------------------------------------


def _judge_sum(code: Any) -> None:
    run = _Runner(code, "sum_warp")
    rng = np.random.default_rng(47)
    total = _Output((1,), np.float32, 0)
    for values in (np.ones(32), 2.0 ** np.arange(-16, 16), rng.integers(-99, 99, 32)):
        total.array[...] = 0
        run((1,), (32,), total.array, values.astype(np.float32))
        total.check()
        got, expected = float(total.array[0]), float(np.float32(values).sum())
        if abs(got - expected) <= 1e-6 * np.abs(values).sum():
            continue
        if got == np.float32(values[0]):
            raise Wrong("Thread 0 stores its own number: nothing has come from the others.")
        if (values == 1).all():
            raise Wrong(
                "Of 32 ones it counts too many."
                if got > 32
                else "Of 32 ones it counts too few."
            )
        raise Wrong(
            "It is right for 32 ones, and wrong for others: some count twice, and others not at all."
        )
    if "__shfl" not in code:
        raise Wrong(
            "The sum is right. The exercise asks for __shfl_down_sync, which it does not call."
        )


def _steps_mistakes() -> Iterable[Mistake]:
    yield "Each step halves what is left, and does not take one away.", [31, 62]
    yield "Each step halves what is left, and does not take one away.", [32, 64]
    yield "One more than it takes: the last step adds two numbers to one.", [6, 12]
    yield (
        "The first is right. In a block the 32 sums of the warps take as many steps again.",
        [5, 5],
    )


# 4.8 ------------------------------------------------------------------------------------------------------------------


def _judge_histogram(code: Any) -> None:
    run = _Runner(code, "histogram")
    rng = np.random.default_rng(48)
    for n, about in (
        (256, "for as many pixels as there are threads"),
        (300, "for 300 pixels, whose last block hangs over"),
    ):
        for seed in (None, 1, 2):
            values = np.full(n + 999, 7, np.int32)
            values[:n] = rng.integers(0, 7, n)
            counts = _Output((8,), np.int32, 0)
            run((_ceil(n, 128),), (128,), counts.array, values, np.int32(n), seed=seed)
            counts.check()
            expected = np.bincount(values[:n], minlength=8)
            if np.array_equal(counts.array, expected):
                continue
            if counts.array[7] and counts.array[:7].tolist() == expected[:7].tolist():
                raise Wrong(f"Threads beyond the last pixel count, too, {about}.")
            if counts.array.sum() < n:
                raise Wrong(
                    f"Counts are lost {about}: threads overwrite each other's, or begin before the others are ready."
                )
            raise Wrong(
                f"It counts too many {about}: does the shared memory begin at 0, and for all threads?"
            )
    if "atomicAdd" not in code:
        raise Wrong(
            "The emulator's threads happened not to meet. On a GPU plain additions lose counts."
        )


# 4.9 ------------------------------------------------------------------------------------------------------------------


def _judge_three_sums(answer: Any) -> None:
    given = to_array(answer, (3,))
    if given.shape != (3,):
        raise Wrong(f"Its shape is {given.shape}, and three numbers were expected.")
    with np.errstate(all="ignore"):
        a, b, c = given.astype(np.float32)
        if not np.array_equal(given, [a, b, c]):
            raise Wrong(
                "They are no float32 numbers: they are rounded before anything is added."
            )
        if not np.isfinite(given).all():
            raise Wrong("Take finite numbers.")
        sums = {float((a + b) + c), float(a + (b + c)), float((a + c) + b)}
    if len(sums) < 3:
        number = {1: "one value", 2: "two values"}[len(sums)]
        raise Wrong(
            f"Their sums take {number}: it needs a large one, a small one, and one in between or negative."
        )


def _scale_mistakes() -> Iterable[Mistake]:
    yield "One of the 64 bits is the sign.", 50.0
    yield "This is the scale, and the exponent of 2 was asked for.", 2.0**49
    yield "Room for the sum is needed: 10,000 numbers may all be 1.", 63.0
    yield "10,000 needs less than 2¹⁴: a larger scale fits.", 48.0


# 4.10 -----------------------------------------------------------------------------------------------------------------


def _box(angle: float, scale: float) -> list[float]:
    c, s = np.cos(angle), np.sin(angle)
    inverse = np.linalg.inv(scale * np.array([[c, -s], [s, c]]))
    wide, high = 2 * np.abs(inverse).sum(1)
    return [wide, wide * high, 4 * abs(np.linalg.det(inverse))]


def _boxes() -> Iterable[Case]:
    for angle, scale, about in (
        (0.0, 1.0, "for the identity"),
        (0.0, 0.8, "without a turn"),
        (np.pi / 4, 1.0, "without a scale"),
        (0.6, 1.3, "for a turn and a scale"),
        (-0.4, 0.7, "for negative angles"),
        (2.0, 0.7, "for angles beyond 90°"),
    ):
        yield Case(about, (angle, scale))


# 4.11 -----------------------------------------------------------------------------------------------------------------


def _nearest(
    image: np.ndarray, m: np.ndarray, offset: float = 0.0, border: bool = False
) -> np.ndarray:
    h, w = image.shape
    out = np.zeros((h, w), np.float32)
    for i in range(h):
        for j in range(w):
            x, y = m @ [j, i, 1]
            column, row = int(np.floor(x + 0.5 + offset)), int(np.floor(y + 0.5 + offset))
            if border:
                column, row = min(max(column, 0), w - 1), min(max(row, 0), h - 1)
            if 0 <= column < w and 0 <= row < h:
                out[i, j] = image[row, column]
    return out


def _judge_nearest(code: Any) -> None:
    run = _Runner(code, "nearest")
    rng = np.random.default_rng(411)
    turn = np.array([[0.8337, -0.5171, 4.3719], [0.4713, 0.9177, -3.1331]])  # meets no half
    for (h, w), m, about in (
        (
            (16, 16),
            np.array([[1, 0, 0.2], [0, 1, -0.3]]),
            "for a shift of less than half a pixel",
        ),
        ((16, 16), np.array([[1, 0, 3.3], [0, 1, -2.2]]), "for a shift to the outside"),
        ((16, 16), turn, "for a turn"),
        ((9, 21), turn, "for an image that is not square"),
    ):
        image, out = 1 + rng.random((h, w), np.float32), _Output((h, w), np.float32)
        given = out.array, image, m.astype(np.float32).ravel(), np.int32(h), np.int32(w)
        run((_ceil(w, 8), _ceil(h, 4)), (8, 4), *given)
        out.check()
        if (out.array == _MARK).any():
            raise Wrong(f"Some pixels are never written {about}: what is outside is 0.")
        swapped = m[::-1][:, [1, 0, 2]]
        _diagnose(
            out.array,
            _nearest(image, m),
            about,
            [
                (
                    "It rounds down, and the nearest pixel may be the next one.",
                    _nearest(image, m, -0.5),
                ),
                (
                    "It reads the border, where outside there is 0.",
                    _nearest(image, m, border=True),
                ),
                (
                    "x and y have changed places: the first row of M makes x.",
                    _nearest(image, swapped),
                ),
            ],
        )


EXERCISES = [
    Exercise(
        "two parts: the numbers of blocks, of the block, of the thread's row and column and of its pixel; "
        "and the blocks that hang over",
        parts(
            {
                "the numbers": value(
                    _who,
                    mistakes=_who_mistakes,
                    names=(
                        "how many blocks",
                        "which block",
                        "the thread's row",
                        "its column",
                        "which of its pixels",
                    ),
                ),
                "the blocks that hang over": _judge_hanging,
            }
        ),
    ),
    Exercise(
        "four numbers: blocks and idle threads for 1,000 elements, and for 1,000,000",
        value(
            _idle,
            mistakes=_idle_mistakes,
            names=(
                "the blocks",
                "the idle threads",
                "the blocks of a million",
                "its idle threads",
            ),
        ),
    ),
    Exercise(
        "the source of a kernel mirror(float* out, const float* image, int h, int w)",
        _judge_mirror,
    ),
    Exercise(
        "four numbers of channels: float32 with the grid, with both grids, and float16 likewise",
        value(
            _channels,
            mistakes=_channel_mistakes,
            names=("float32, the grid", "float32, both", "float16, the grid", "float16, both"),
        ),
    ),
    Exercise(
        "four numbers of sectors: a row's writes and reads, a column's writes and reads",
        value(
            _sectors,
            mistakes=_sector_mistakes,
            names=("a row's writes", "a row's reads", "a column's writes", "a column's reads"),
        ),
    ),
    Exercise("the source of the kernel turn(float* values), mended", _judge_turn),
    Exercise(
        "two parts: the source of a kernel sum_warp(float* sum, const float* values), and the steps for a warp "
        "and for a block",
        parts(
            {
                "the kernel": _judge_sum,
                "the steps": value(lambda: [5, 10], mistakes=_steps_mistakes),
            }
        ),
    ),
    Exercise(
        "the source of a kernel histogram(int* counts, const int* values, int n), launched with blocks of 128 threads",
        _judge_histogram,
    ),
    Exercise(
        "two parts: the three numbers, and the exponent of the largest scale that is a power of 2",
        parts(
            {
                "the three numbers": _judge_three_sums,
                "the exponent": value(lambda: 49.0, mistakes=_scale_mistakes),
            }
        ),
    ),
    Exercise(
        "a function box(angle, scale) that returns the box's width, the outputs in it and the readers; "
        "the angle is in radians",
        function(
            _box,
            _boxes,
            mistakes=[
                (
                    "It takes the scale the other way round: the box is in pixels of the output.",
                    lambda a, s: _box(a, 1 / s),
                ),
                (
                    "It takes the angle in degrees, and it comes in radians.",
                    lambda a, s: _box(np.deg2rad(a), s),
                ),
                (
                    "It is right for angles between 0 and 90° only: elsewhere a sine or a cosine is negative.",
                    lambda a, s: [
                        2 * (np.cos(a) + np.sin(a)) / s,
                        4 * (np.cos(a) + np.sin(a)) ** 2 / s**2,
                        4 / s**2,
                    ],
                ),
                (
                    "The width is half of it: the reach goes to both sides.",
                    lambda a, s: np.array(_box(a, s)) * [0.5, 0.25, 1],
                ),
                (
                    "Box and places are right. Each output reads four pixels.",
                    lambda a, s: np.array(_box(a, s)) * [1, 1, 0.25],
                ),
                (
                    "Box and places are right. The readers depend on the area, the square of the scale.",
                    lambda a, s: np.array(_box(a, s)) * [1, 1, s],
                ),
            ],
            names=("the width", "the outputs", "the readers"),
        ),
    ),
    Exercise(
        "the source of a kernel nearest(float* out, const float* in, const float* m, int h, int w)",
        _judge_nearest,
    ),
    Exercise("a machine of your own and an explanation"),
    Exercise("research"),
]
