"""The exercises: what `check` says to right answers and to typical wrong ones, and how the book uses it."""

import json
import re
import subprocess
import sys
from math import comb
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import stnlib
from stnlib import interpolation, transforms
from stnlib.engines import emulator
from stnlib.exercises import Verdict, check
from stnlib.exercises._judges import Case, Wrong, compare, function

BOOK = Path(__file__).parents[1] / "book"
CHAPTERS = sorted(BOOK.glob("0*.ipynb"))

try:
    emulator.compiler()
    compiler = ""
except emulator.NoCompilerError as error:
    compiler = str(error)
needs_compiler = pytest.mark.skipif(bool(compiler), reason=compiler or "there is a compiler")

# Answers worked out another way than in the package ---------------------------------------------------------------


def zoom_to(z, px, py):
    return [[1 / z, 0, px * (1 - 1 / z)], [0, 1 / z, py * (1 - 1 / z)]]


def to_edges(theta, size):
    """Conjugate with the map from the one kind of coordinates to the other."""
    h, w = size
    stretch = np.diag([w / (w - 1), h / (h - 1), 1])
    whole = np.vstack([theta, [0, 0, 1]])
    return (np.linalg.inv(stretch) @ whole @ stretch)[:2]


def take_apart(a):
    sx, alpha = np.hypot(a[0, 0], a[1, 0]), np.arctan2(a[1, 0], a[0, 0])
    c, s = np.cos(alpha), np.sin(alpha)
    return alpha, sx, np.linalg.det(a) / sx, (c * a[0, 1] + s * a[1, 1]) / sx


def nothing_cut_off(angle, way=-1, room=lambda c, s: abs(c) + abs(s)):
    return room(np.cos(angle), np.sin(angle)) * transforms.rotation(way * angle)


def distance(first, second):
    return np.sqrt(np.sum((first - second) ** 2 * [1 / 3, 1 / 3, 1]))


def in_place(first, second):
    first -= second
    return np.sqrt(np.sum(first**2 * [1 / 3, 1 / 3, 1]))


def saddle(u):
    p, q, r = u[0, 0], u[0, 1] - u[0, 0], u[1, 0] - u[0, 0]
    s = u[0, 0] - u[0, 1] - u[1, 0] + u[1, 1]
    return p, q, r, s, -r / s, -q / s


class Cubic(interpolation.Kernel):
    support = 2

    def __init__(self, alpha):
        self.alpha = alpha

    def value(self, d, xp):
        a, d = self.alpha, xp.abs(d)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        return xp.where(d < 1, near, a * (((d - 5) * d + 8) * d - 4))


class OneSided(Cubic):
    def value(self, d, xp):
        return xp.where(d < 0, 1.0, super().value(d, xp))


class Mitchell(interpolation.Kernel):
    """As Mitchell and Netravali write it, with B = C = 1/3."""

    support = 2

    def value(self, d, xp):
        b = c = 1 / 3
        d = xp.abs(d)
        near = (12 - 9 * b - 6 * c) * d**3 + (-18 + 12 * b + 6 * c) * d**2 + 6 - 2 * b
        far = (-b - 6 * c) * d**3 + (6 * b + 30 * c) * d**2 - (12 * b + 48 * c) * d
        return xp.where(d < 1, near, far + 8 * b + 24 * c) / 6

    def derivative(self, d, xp):
        return (self.value(d + 1e-6, xp) - self.value(d - 1e-6, xp)) / 2e-6


class Even(Mitchell):
    def derivative(self, d, xp):
        return super().derivative(xp.abs(d), xp)


def wide_hats(size, size_out, divide=True):
    step = size / size_out
    x = step * (np.arange(size_out) + 0.5) - 0.5
    weights = np.maximum(0, 1 - np.abs(x[:, None] - np.arange(size)) / step)
    return weights / weights.sum(1, keepdims=True) if divide else weights


def similarity_vjp(g, s, angle, forgotten=False):
    c, t = np.cos(angle), np.sin(angle)
    stretch, turn = g[0, 0] + g[1, 1], g[1, 0] - g[0, 1]
    by_angle = (1 if forgotten else s) * (turn * c - stretch * t)
    return [stretch * c + turn * t, by_angle, g[0, 2], g[1, 2]]


def second_derivatives(u):
    return (u[1, 1] - u[1, 0] - u[0, 1] + u[0, 0]) * np.array([[0, 1], [1, 0]])


def gauss_newton_step(theta, image, goal, sign=1):
    size, options = goal.shape[-2:], {"padding_mode": "border"}
    grid = stnlib.affine_grid(theta, size)
    output = stnlib.grid_sample(image, grid, **options)
    slope = stnlib.grid_sample_vjp(np.ones_like(output), image, grid, **options).grid[0]
    x, y = stnlib.affine_grid(np.eye(2, 3)[None], size)[0].reshape(-1, 2).T
    targets = np.stack((x, y, np.ones_like(x)), axis=1)
    J = np.hstack([slope[..., k].reshape(-1, 1) * targets for k in (0, 1)])
    delta = np.linalg.lstsq(J, (goal - output).ravel(), rcond=None)[0]
    return theta + sign * delta.reshape(1, 2, 3)


def jvp(f, x, v):
    torch = pytest.importorskip("torch")
    return torch.autograd.functional.jvp(f, x, v)[1]


def vjp(f, x, v):
    torch = pytest.importorskip("torch")
    return torch.autograd.functional.vjp(f, x, v)[1]


def bent(d, a):
    r = np.abs(d)
    return np.where(r < 1, 6 * (a + 2) * r - 2 * (a + 3), 6 * a * r - 10 * a)


def hessian_times(loss, theta, v):
    torch = pytest.importorskip("torch")
    return torch.autograd.functional.hvp(loss, theta, v)[1]


def find_grey(scan, image, theta):
    """Look at the pixel that is farthest outside: it is the grey."""
    grid = stnlib.affine_grid(theta, scan.shape[-2:])[0]
    place = np.unravel_index(np.argmax(np.abs(grid).max(-1)), grid.shape[:2])
    return scan[0, 0][place]


def box(angle, scale):
    width = 2 * (abs(np.cos(angle)) + abs(np.sin(angle))) / scale
    return width, width**2, 4 / scale**2


MIRROR = r"""
extern "C" __global__ void mirror(float* out, const float* image, int h, int w) {
    int j = blockIdx.x * blockDim.x + threadIdx.x;
    int i = blockIdx.y * blockDim.y + threadIdx.y;
    if (i < h && j < w) out[i * w + j] = image[i * w + w - 1 - j];
}
"""
TURN = r"""
extern "C" __global__ void turn(float* values) {
    __shared__ float tile[64];
    tile[threadIdx.x] = values[threadIdx.x];
    __syncthreads();
    values[threadIdx.x] = tile[63 - threadIdx.x];
}
"""
SUM = r"""
extern "C" __global__ void sum_warp(float* sum, const float* values) {
    float mine = values[threadIdx.x];
    for (int other = 16; other > 0; other /= 2)
        mine += __shfl_down_sync(0xffffffff, mine, other);
    if (threadIdx.x == 0) *sum = mine;
}
"""
HISTOGRAM = r"""
extern "C" __global__ void histogram(int* counts, const int* values, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomicAdd(counts + values[i], 1);
}
"""
NEAREST = r"""
extern "C" __global__ void nearest(float* out, const float* in, const float* m, int h, int w) {
    int j = blockIdx.x * blockDim.x + threadIdx.x, i = blockIdx.y * blockDim.y + threadIdx.y;
    if (j >= w || i >= h) return;
    int x = rintf(m[0] * j + m[1] * i + m[2]), y = rintf(m[3] * j + m[4] * i + m[5]);
    out[i * w + j] = x >= 0 && x < w && y >= 0 && y < h ? in[y * w + x] : 0;
}
"""


def make_network(size=(32, 32), start=0.0):
    torch = pytest.importorskip("torch")
    from stnlib.nn import SpatialTransformer

    look = torch.nn.Sequential(
        torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(192, 6)
    )
    network = torch.nn.Sequential(
        SpatialTransformer(look, size=size),
        torch.nn.Flatten(),
        torch.nn.Linear(3 * size[0] * size[1], 10),
    )
    with torch.no_grad():
        look[-1].bias[2] += start
    return network


class Window:
    """The attention of equation (2), with one mistake or none."""

    num_parameters = 3

    def __init__(self, swap=False, deaf=False):
        self.swap, self.deaf = swap, deaf

    def identity(self):
        return np.array([1.0, 0.0, 0.0])

    def grid(self, theta, size, *, align_corners=False):
        s, x, y = (theta[:, k, None, None] for k in ([0, 2, 1] if self.swap else [0, 1, 2]))
        corners = align_corners and not self.deaf
        rows, columns = (
            theta.new_tensor(stnlib.pixel_centres(n, align_corners=corners)) for n in size
        )
        wide = s * columns[None, None] + x + 0 * rows[None, :, None]
        high = s * rows[None, :, None] + y + 0 * columns[None, None]
        return np.stack((wide.numpy(), high.numpy()), axis=-1)


class Nameless:
    num_parameters = 3


def gradient_at_zero(g, slope):
    y, x = (np.linspace(-1 + 1 / n, 1 - 1 / n, n) for n in g.shape)
    return np.outer(slope, [(g @ x).sum(), (y @ g).sum(), g.sum()])


class Lens(transforms.Family):
    num_parameters = 1
    power = 2

    def identity(self):
        return np.zeros(1)

    def apply(self, theta, points):
        r = np.linalg.norm(points, axis=-1, keepdims=True)
        return points * (1 + theta[:, :, None] * r**self.power)


class WeakLens(Lens):
    power = 1


def between(first, last, t):
    way = transforms.logarithm(transforms.compose(last, transforms.inverse(first)))
    return transforms.compose(transforms.exponential(t * way), first)


def on_the_wrong_side(first, last, t):
    way = transforms.logarithm(transforms.compose(last, transforms.inverse(first)))
    return transforms.compose(first, transforms.exponential(t * way))


class Answers(NamedTuple):
    """A right answer to an exercise, and wrong ones with a part of what is said of each."""

    right: object
    wrong: dict[str, object]


RULES = [[4, 1.5, 0], [4, 2.5, 4], [4, 2, 7], [4, 3, 3], [4, 2, 7]]
UPSIDE, LEFT_RIGHT = np.array([[-1, 0, 0], [0, -1, 0.0]]), np.array([[-1, 0, 0], [0, 1, 0.0]])
THREE = np.array([[0.55, -0.1, -0.05], [0.2, 0.55, -0.05]])
HANG = [3, 7, 8, 9, 10, 11]
COUNT = 1764 * 32 + 32 + 2 * (32 * 32 + 32) + 32 * 6 + 6
IN_PLANE_AND_SPACE = [3, 4, 6, 8, 6, 7, 12]

ANSWERS = {
    "1.1": Answers(
        [0, 0, 150, 150, 2],
        {
            "as fine as before": [0, 0, 150, 150, 0.5],
            "shift of +0.5": [150, 150, 300, 300, 2],
            "normalised coordinates": [-1, -1, 0, 0, 2],
            "Right: left, top and the size. Look again at: right and bottom": [0, 0, 99, 99, 2],
        },
    ),
    "1.2": Answers(
        (UPSIDE, LEFT_RIGHT),
        {
            "determinant is negative": (np.diag([1, -1, 1])[:2], LEFT_RIGHT),
            "mirrors top to bottom": (UPSIDE, np.diag([1, -1, 1])[:2]),
            "leave out the last row": (np.diag([-1, -1, 1]), LEFT_RIGHT),
            "a tuple was expected": "turn",
            "It has 1 parts, and 2 were expected": (UPSIDE,),
        },
    ),
    "1.3": Answers(180, {"Radians, and degrees": np.pi, "half of it is 45°": 90}),
    "1.4": Answers(
        zoom_to,
        {
            "It zooms out": lambda z, px, py: zoom_to(1 / z, px, py),
            "about the middle, and the point moves": lambda z, px, py: zoom_to(z, 0, 0),
            "the right one acts first": lambda z, px, py: zoom_to(z, -px, -py),
            "is called with 3 arguments, and takes (z)": lambda z: zoom_to(z, 0, 0),
            "is a return missing?": lambda z, px, py: None,
            "raises ZeroDivisionError about the middle": lambda z, px, py: 1 / px,
            "a function was expected": zoom_to(2, 0, 0),
            "There is NaN in it": lambda z, px, py: np.full((2, 3), np.nan),
            "x and y have changed places": lambda z, px, py: zoom_to(z, py, px),
        },
    ),
    "1.5": Answers(
        THREE,
        {
            "It is the inverse": transforms.inverse(THREE),
            "two axes have changed places": THREE.T,
            "looks rounded to 1 decimal.": THREE.round(1),
            "x and y have changed places": THREE[::-1][:, [1, 0, 2]],
        },
    ),
    "1.6": Answers(
        to_edges,
        {
            "as it came": lambda theta, size: theta,
            "the other way": lambda theta, size: transforms.pixel_to_theta(
                transforms.theta_to_pixel(theta, size, size), size, size, align_corners=True
            ),
            "Right for square images only": lambda theta, size: (
                theta * [[1, 1, 1 - 1 / size[1]], [1, 1, 1 - 1 / size[0]]]
            ),
            "right on square images, and wrong on images of 5 × 8": lambda theta, size: (
                theta * [1, 1, 31 / 32]
            ),
        },
    ),
    "1.7": Answers(
        take_apart,
        {
            "in degrees": lambda a: (np.rad2deg(take_apart(a)[0]), *take_apart(a)[1:]),
            "turns the other way": lambda a: (-take_apart(a)[0], *take_apart(a)[1:]),
            "still has the factor": lambda a: (
                *take_apart(a)[:3],
                take_apart(a)[3] * take_apart(a)[1],
            ),
            "one scale is negative": lambda a: np.multiply(
                take_apart(a), [1, 1, np.sign(np.linalg.det(a)), 1]
            ),
        },
    ),
    "1.8": Answers(
        nothing_cut_off,
        {
            "turns the other way": lambda angle: nothing_cut_off(angle, 1),
            "Right for angles between 0 and 90° only": lambda angle: nothing_cut_off(
                angle, room=lambda c, s: c + s
            ),
            "could be larger": lambda angle: nothing_cut_off(angle, room=lambda c, s: 2**0.5),
        },
    ),
    "1.9": Answers(
        distance,
        {
            "plain distance": lambda a, b: np.linalg.norm(a - b),
            "the root is missing": lambda a, b: distance(a, b) ** 2,
            "It changes the array": in_place,
        },
    ),
    "2.1": Answers(
        RULES,
        {
            "two reflections have changed places": [*RULES[:3], RULES[4], RULES[3]],
            "Look again at: border": [*RULES[:2], [4, 3, 7], *RULES[3:]],
        },
    ),
    "2.2": Answers(
        [[8, 4, 0.36], [7, 3, 0.06], [7, 4, 0.04], [8, 3, 0.54]],
        {
            "Rows and columns have changed places": [
                [3, 7, 0.06],
                [4, 7, 0.04],
                [3, 8, 0.54],
                [4, 8, 0.36],
            ],
            "those of the opposite pixels": [
                [7, 3, 0.36],
                [7, 4, 0.54],
                [8, 3, 0.04],
                [8, 4, 0.06],
            ],
            "do not add up to 1": [[7, 3, 0.1], [7, 4, 0.1], [8, 3, 0.1], [8, 4, 0.1]],
            "not the four pixels": [[7, 2, 0.06], [7, 4, 0.04], [8, 3, 0.54], [8, 4, 0.36]],
        },
    ),
    "2.3": Answers(
        [[2, 3.25, 4], [2, 3, 4.5]],
        {
            "is not repeated": [[2, 3.25, 4], [2, 2, 5]],
            "Wrap and mirror have changed": [[2, 3, 4.5], [2, 3.25, 4]],
        },
    ),
    "2.4": Answers(
        lambda u: (u[:, 1:] + u[:, :-1]) / 2,
        {
            "moves down": lambda u: (u[1:] + u[:-1]) / 2,
            "the weights are missing": lambda u: u[:, 1:] + u[:, :-1],
            "Its shape is (5, 5), and (5, 4)": lambda u: u,
        },
    ),
    "2.5": Answers(
        saddle, {"a and b have changed places": lambda u: (*saddle(u)[:4], *saddle(u)[:3:-1])}
    ),
    "2.6": Answers(
        lambda k: [comb(2 * k, j) / 4**k for j in range(2 * k + 1)],
        {
            "a pair is two of them": lambda k: [comb(k, j) / 2**k for j in range(k + 1)],
            "no shift makes light": lambda k: [comb(2 * k, j) for j in range(2 * k + 1)],
        },
    ),
    "2.7": Answers(
        (0.125, 4), {"in front of its square": (0.25, 4), "each is per pixel": (0.125, 2)}
    ),
    "2.8": Answers(
        [1 / 6, 4 / 6, 1 / 6, 1 / 3],
        {
            "what a 0 becomes": [1 / 6, 4 / 6, 1 / 6, 4 / 6],
            "looks rounded to 3 decimals": [0.167, 0.667, 0.167, 0.333],
        },
    ),
    "2.9": Answers(
        ("level", 9),
        {
            "has one grey value": ("upright", 9),
            "half a pixel long": ("level", 4),
            "none of the words to choose from: 'level' and 'upright'": ("both", 9),
        },
    ),
    "2.10": Answers(Cubic, {"wrong for negative distances": OneSided, "a class was": Cubic(1)}),
    "2.11": Answers(
        wide_hats,
        {
            "the division is missing": lambda a, b: wide_hats(a, b, divide=False),
            "two axes have changed places": lambda a, b: wide_hats(a, b).T,
        },
    ),
    "2.12": Answers(Mitchell, {"the sign of d is missing": Even()}),
    "3.1": Answers(
        [[2.5, 5, 2], [-2, 0, 2]],
        {
            "from the left": [[2.5, 5, 2], [-2, 0, -3]],
            "the mean of both sides": [[2.5, 5, 2], [-2, 0, -0.5]],
            "Right: the values": [[2.5, 5, 2], [1, 1, 1]],
        },
    ),
    "3.2": Answers(
        [True, False, True],
        {"a pixel outside": [True, True, True], "Three times": [1, 2, 3]},
    ),
    "3.3": Answers(
        ([1, 1, 1], 1),
        {
            "lies outside": ([1, 1], 5),
            "which one could believe": ([0, 4, 1], 1),
            "what the right one reads": ([0, 100], 0.5),
        },
    ),
    "3.4": Answers(
        [[0, 0, 100], [0, 0, 0]],
        {
            "The other row": [[0, 0, 0], [0, 0, 100]],
            "align_corners=True": [[0, 0, 87.5], [0, 0, 0]],
            "per pixel": [[0, 0, 25], [0, 0, 0]],
        },
    ),
    "3.5": Answers(
        similarity_vjp,
        {
            "The scale is missing": lambda g, s, angle: similarity_vjp(g, s, angle, True),
            "in degrees": lambda g, s, angle: similarity_vjp(g, s, np.deg2rad(angle)),
        },
    ),
    "3.6": Answers("grid", {"its value changes": "both", "a tenth of a pixel": "neither"}),
    "3.7": Answers(
        second_derivatives,
        {
            "The sign": lambda u: -second_derivatives(u),
            "on the diagonal": lambda u: second_derivatives(u)[::-1],
        },
    ),
    "3.8": Answers(
        gauss_newton_step,
        {
            "away from the goal": lambda *a: gauss_newton_step(*a, sign=-1),
            "the first axis, of the batch, is missing": lambda *a: gauss_newton_step(*a)[0],
        },
    ),
    "3.9": Answers(jvp, {"a vector-Jacobian product": vjp}),
    "3.10": Answers(bent, {"drop the sign of d": lambda d, a: np.sign(d) * bent(d, a)}),
    "3.11": Answers(
        hessian_times, {"a number: v H v": lambda f, t, v: hessian_times(f, t, v) @ v}
    ),
    "3.12": Answers(find_grey, {"from 0": lambda *a: -find_grey(*a)}),
    "4.1": Answers(
        ([12, 6, 5, 6, 1], HANG),
        {
            "four times as high": ([36, 22, 5, 6, 0], HANG),
            "The last row of blocks": ([12, 6, 5, 6, 1], [3, 7, 11]),
            "One block too many": ([12, 6, 5, 6, 1], [0, *HANG]),
        },
    ),
    "4.2": Answers([4, 24, 3907, 192], {"makes the last elements": [3, -232, 3906, -64]}),
    "4.4": Answers([19, 46, 37, 91], {"one more is needed": [18, 45, 36, 90]}),
    "4.5": Answers([4, 10, 32, 33], {"Row and column": [32, 33, 4, 10]}),
    "4.9": Answers(
        ([2.0**24, 2 - 2.0**24, 0.75], 49),
        {
            "take one value": ([1, 2, 3], 49),
            "no float32 numbers": ([0.1, 2, 3], 49),
            "is the sign": ([2.0**24, 2 - 2.0**24, 0.75], 50),
        },
    ),
    "4.10": Answers(
        box,
        {
            "in degrees": lambda angle, scale: box(np.deg2rad(angle), scale),
            "the other way round": lambda angle, scale: box(angle, 1 / scale),
        },
    ),
    "5.2": Answers(
        (COUNT, 15),
        {"biases are missing": (COUNT - 32 * 3 - 6, 15), "a fraction": (COUNT, 0.15)},
    ),
    "5.3": Answers("input", {"all that the localisation network": "theta"}),
    "5.4": Answers(
        Window(),
        {
            "x and y of the shift": Window(swap=True),
            "ignores align_corners": Window(deaf=True),
            "has no identity": Nameless,
        },
    ),
    "5.5": Answers(
        gradient_at_zero,
        {"treats all pixels alike": lambda g, slope: np.outer(slope, [0, 0, g.sum()])},
    ),
    "5.7": Answers(
        {"network", "optimiser", "steps"},
        {
            "One too many, 'random'": ["network", "optimiser", "steps", "random"],
            "one is missing": ["network", "steps"],
            "none of the words": ["weights"],
        },
    ),
    "6.1": Answers(
        (IN_PLANE_AND_SPACE, [2, 2, 3, 4, 3, 3, 4]),
        {
            "A common factor": ([3, 4, 6, 9, 6, 7, 12], [2, 2, 3, 4, 3, 3, 4]),
            "about the line through them": (IN_PLANE_AND_SPACE, [2, 2, 3, 4, 2, 3, 4]),
        },
    ),
    "6.2": Answers(
        transforms.Affine([[1 / 3, 0, "tx"], [0, 1, 0]]),
        {
            "not a third": transforms.Affine([[3, 0, "tx"], [0, 1, 0]]),
            "a third of the height": transforms.Affine([[1 / 3, 0, "tx"], [0, 1 / 3, 0]]),
            "slides along y": transforms.Affine([[1 / 3, 0, 0], [0, 1, "ty"]]),
            "It has 3 parameters": transforms.Attention(),
        },
    ),
    "6.3": Answers(
        lambda a, b: abs(a) + abs(b) < 1,
        {
            "Each of the two below 1": lambda a, b: max(abs(a), abs(b)) < 1,
            "Right for positive values": lambda a, b: a + b < 1,
            "the other way round": lambda a, b: abs(a) + abs(b) >= 1,
        },
    ),
    "6.4": Answers(Lens, {"not by its square": WeakLens()}),
    "6.5": Answers(
        between,
        {
            "averages the entries": lambda a, b, t: (1 - t) * a + t * b,
            "on the wrong side": on_the_wrong_side,
            "backwards": lambda a, b, t: between(b, a, t),
        },
    ),
    "6.6": Answers((2, "never"), {"half as large": (1, "never"), "stand over": (2, "later")}),
    "7.1": Answers([26.1, 640], {"held some digits out": [23.9, 640]}),
    "7.2": Answers(
        [56 * 82, 104 * (49 * 56 + 1), 10 * 10401, 394082],
        {"each of the 56 channels": [4592, 104 * 50, 104010, 4592 + 5200 + 104010]},
    ),
    "7.3": Answers(
        (0.82, 59_548), {"variances add": (1.2, 59_548), "the root": (0.82, 24_400)}
    ),
    "7.4": Answers(
        lambda b, c: (b - c) / np.sqrt(b + c),
        {
            "The sign is lost": lambda b, c: abs(b - c) / np.sqrt(b + c),
            "its square": lambda b, c: (b - c) ** 2 / (b + c),
        },
    ),
    "7.7": Answers(
        (0.76, "closer"),
        {"The mean of the ten": (0.9, "closer"), "left to choose from": (0.76, "further")},
    ),
}

KERNELS = {
    "4.3": Answers(
        MIRROR,
        {
            "beyond the end": MIRROR.replace("if (i < h && j < w) ", ""),
            "one pixel off": MIRROR.replace("w - 1 - j", "w - j"),
            "does not compile": MIRROR.replace("int j", "it j"),
            "no kernel named mirror": TURN,
        },
    ),
    "4.6": Answers(TURN, {"no barrier": TURN.replace("__syncthreads();", "")}),
    "4.7": Answers(
        (SUM, [5, 10]),
        {
            "halves what is left": (SUM, [31, 62]),
            "too few": (SUM.replace("= 16", "= 8"), [5, 10]),
        },
    ),
    "4.8": Answers(HISTOGRAM, {"beyond the last pixel": HISTOGRAM.replace("if (i < n) ", "")}),
    "4.11": Answers(NEAREST, {"rounds down": NEAREST.replace("rintf", "floorf")}),
}
# Networks are made in the test, since PyTorch may be missing.
EVERY = sorted({*ANSWERS, *KERNELS, "5.1"})


@pytest.mark.parametrize("name", ANSWERS)
def test_right_answer_is_right_and_each_wrong_one_is_told_what_is_wrong(name):
    _try(name, *ANSWERS[name])


@needs_compiler
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_run(name):
    _try(name, *KERNELS[name])


def _try(name, right, wrong):
    verdict = check(name, right)
    assert verdict, verdict
    assert repr(verdict) == f"Exercise {name}: right."
    for hint, answer in wrong.items():
        verdict = check(name, answer)
        assert not verdict
        assert hint.lower() in repr(verdict).lower()


def test_network_is_tried():
    torch = pytest.importorskip("torch")
    assert check("5.1", make_network())
    for hint, answer in {
        "(4, 3, 16, 16), and (4, 3, 32, 32)": make_network((16, 16)),
        "θ is not the identity": make_network(start=0.1),
        "It has 0 SpatialTransformer": torch.nn.Flatten(),
        "a network was expected": 3,
    }.items():
        assert hint in repr(check("5.1", answer)), hint


def test_tensors_are_answers_too():
    torch = pytest.importorskip("torch")
    assert check("1.5", torch.tensor(THREE, requires_grad=True))


@pytest.mark.parametrize("name", ["2.13", "5.8", "6.10", "7.9"])
def test_what_no_program_can_judge_says_so(name):
    for verdict in (check(name), check(name, 1)):
        assert not verdict
        assert "no program can judge" in repr(verdict)
        assert "folded solution" in repr(verdict)


def test_without_an_answer_it_says_what_is_wanted():
    assert repr(check("1.4")) == (
        "Exercise 1.4 asks for a function zoom_to(z, px, py) that returns θ, of shape (2, 3)."
    )


def test_no_such_exercise():
    with pytest.raises(ValueError, match=r"'1\.99'; there are 1\.1 to 1\.9$"):
        check("1.99")
    with pytest.raises(ValueError, match=r"there are 1\.1 to 1\.9, 2\.1 to 2\.13, .*7\.9$"):
        check("ex-1-4")
    with pytest.raises(TypeError, match="a string, such as"):
        check(3.1)


def test_nothing_is_printed(capsys):
    check("1.4", zoom_to)
    check("1.4", 3)
    assert capsys.readouterr() == ("", "")


def test_verdict_is_one_sentence():
    assert repr(Verdict(False, "Not yet.")) == str(Verdict(False, "Not yet.")) == "Not yet."


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (-np.eye(3), "The sign is the other way round."),
        (np.eye(3)[None], "leave out the first axis, of length 1"),
        (np.ones(9), "as many numbers, arranged in another way"),
        (7 * np.eye(3), "one and the same factor"),
        (np.eye(3) + 0.25, "one and the same amount"),
        (np.eye(3) + 0.5, "Off by a half: too large."),
        (np.eye(3) + 0.001 * np.ones((3, 3)).cumsum(0), "less than a hundredth"),
        (100 * np.eye(3), "per cent"),
        (np.eye(3) + np.eye(3)[0] * [[0], [0], [1]], "8 of 9 numbers are right"),
        (np.eye(3) * 1j, "It is complex"),
        (np.full((3, 3), np.inf), "There is infinity in it."),
        ("E", "It is a str, and an array of shape (3, 3) was expected."),
        ([[1], [1, 2]], "makes no array"),
        (abs, "call it first"),
    ],
)
def test_what_is_said_of_arrays(answer, said):
    with pytest.raises(Wrong) as found:
        compare(answer, np.eye(3))
    assert said in str(found.value)


def test_transposed_and_turned():
    matrix = np.arange(9.0).reshape(3, 3) ** 2
    for answer, said in (
        (matrix.T, "transposed"),
        (matrix[:, ::-1], "Each row runs the other way round."),
        (matrix[::-1], "Each column runs the other way round."),
        (np.rad2deg(matrix), "Degrees, and radians were expected."),
    ):
        with pytest.raises(Wrong, match=said):
            compare(answer, matrix)
    with pytest.raises(Wrong, match="x comes first, then y"):
        compare(np.arange(8.0).reshape(2, 2, 2)[..., ::-1], np.arange(8.0).reshape(2, 2, 2))


def test_function_is_right_for_some():
    judge = function(abs, lambda: [Case("for one", (1,)), Case("for minus two", (-2,))])
    judge(lambda x: max(x, -x))
    with pytest.raises(Wrong, match=r"right for one, and wrong for minus two\. The sign"):
        judge(lambda x: x)


def test_importing_needs_numpy_alone():
    code = (
        "import sys, stnlib.exercises as e\n"
        "for n in range(1, 8): e._chapter(n)\n"
        "print({'torch', 'numba', 'scipy', 'matplotlib'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout == "set()\n", shown.stderr


# In the book ------------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """An exercise in the book: its stars, its text, and the sources and outputs of its solution's cells."""

    stars: int
    text: str
    code: str
    shown: str


def exercises(path: Path) -> dict[str, Found]:
    found: dict[str, Found] = {}
    label, stars, text, code, shown = "", 0, "", "", ""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and label:
            code += source + "\n"
            shown += "".join("".join(o.get("text", "")) for o in cell["outputs"])
        if cell["cell_type"] != "markdown":
            continue
        marks = r"```\{exercise-start\} (★+) [^\n]*\n:label: ex-(\S+)\n```\n(.*?)```\{exercise-end\}"
        for part in re.split(r"(?=```\{exercise-start\}|```\{solution-end\})", source):
            if match := re.match(marks, part, re.DOTALL):
                stars, label, text, code, shown = len(match[1]), match[2], match[3], "", ""
            elif part.startswith("```{solution-end}") and label:
                found[label.replace("-", ".")] = Found(stars, text, code, shown)
                label = ""
    return found


IN_BOOK = {path.stem: exercises(path) for path in CHAPTERS}


@pytest.mark.parametrize("chapter", IN_BOOK)
def test_every_chapter_has_eight_exercises_or_more_from_reading_to_research(chapter):
    found = IN_BOOK[chapter]
    assert list(found) == [f"{int(chapter[:2])}.{n}" for n in range(1, len(found) + 1)]
    assert len(found) >= 8
    assert {each.stars for each in found.values()} == {1, 2, 3, 4}


@pytest.mark.parametrize("chapter", IN_BOOK)
def test_every_exercise_is_known_and_what_can_be_checked_is(chapter):
    for name, each in IN_BOOK[chapter].items():
        call = f'check("{name}", '
        judged = "no program can judge" not in repr(check(name))
        assert judged == (name in EVERY), name
        assert judged == (call in each.text.replace("\n", " ")), name
        assert judged == (f"print({call}" in each.code), name
        assert judged == (f"Exercise {name}: right." in each.shown), name
    number = int(chapter[:2])
    with pytest.raises(ValueError, match="there is no exercise"):
        check(f"{number}.{len(IN_BOOK[chapter]) + 1}")
