"""Digits to train on, distorted afresh: each batch a function of the seed and the step (chapter 5)."""

from __future__ import annotations

from concurrent.futures import Executor, Future

import numpy as np
import torch

from ..data import mnist
from ..data.distortions import BaseDistortion
from .schedule import require_whole

CHUNK = 4096  # digits that are drawn and distorted together, about so many
VALIDATION = 5000  # the last digits of the training set
TEST_SEED = 1506_02025  # one distorted test set for every run, and one for validation
AHEAD = 4  # chunks that are drawn in advance


class DistortedDigits:
    """Random digits, freshly distorted, a batch for each step of a training.

    The batch of a step follows from the seed and the step alone. So a training that goes on after a break sees what it
    would have seen, and several processes can share a batch with no word between them.

    Parameters
    ----------
    images : array of uint8, shape (N, 28, 28)
    labels : array of integers, shape (N,)
    distortion : BaseDistortion
    batch : int
        Digits a step.
    seed : int
        From 0 to 2³² - 1.
    device : torch.device or str, default "cpu"
        Where the digits are distorted, and the batches are. What is random is drawn by NumPy: the same everywhere.
    draw_with : concurrent.futures.Executor, optional
        Draws what is random in advance: one of processes keeps a GPU busy.
    share : (rank, world), default (0, 1)
        The part of each batch to return: the rank-th, from 0, of world equal ones. Each process makes the whole batch,
        as a digit's clutter comes from the others.

    Raises
    ------
    TypeError, ValueError
        If there is not one label for each image, or no image; or batch or seed is not such a whole number; or
        the batch has no such share.

    Notes
    -----
    Used in chapter 5.

    Examples
    --------
    >>> from stnlib.data.distortions import RTS
    >>> data = DistortedDigits(np.zeros((4, 28, 28), np.uint8), np.arange(4), RTS, batch=2, seed=0)
    >>> images, labels = data(step=0)
    >>> images.shape, labels.shape
    (torch.Size([2, 1, 42, 42]), torch.Size([2]))
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        distortion: BaseDistortion,
        batch: int,
        seed: int,
        *,
        device: torch.device | str = "cpu",
        draw_with: Executor | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        if len(images) != len(labels) or len(images) == 0:
            raise ValueError(
                f"labels: expected one for each of {len(images)} images, at least one, got {len(labels)}"
            )
        self.images, self.labels, self.distortion = images, labels, distortion
        self.batch, self.seed = require_whole(batch, "batch"), require_whole(seed, "seed", 0)
        if self.seed >= 2**32:  # whose second half would be taken for a chunk
            raise ValueError(f"seed: expected a whole number below 2**32, got {seed}")
        rank, world = self.share = share
        if not 0 <= rank < world:
            raise ValueError(
                f"share: expected (rank, world) with 0 <= rank < world, got {share}"
            )
        if self.batch % world:
            raise ValueError(
                f"batch: expected a multiple of {world}, the number of processes that share it, got {batch}"
            )
        self.device = torch.device(device)
        self.steps = max(1, CHUNK // self.batch)  # of a chunk
        self.draw_with = draw_with
        self.drawn: dict[int, Future] = {}
        self.chunk = -1
        if self.device.type != "cpu":
            self.pixels = torch.from_numpy(images.copy()).to(self.device)

    def __call__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the batch of a step, counted from 0.

        Returns
        -------
        images : tensor of float32, shape (batch / world, 1, H, W)
        labels : tensor of int64, shape (batch / world,)

        Raises
        ------
        TypeError, ValueError
            If step is not a whole number of at least 0.
        """
        chunk, place = divmod(require_whole(step, "step", 0), self.steps)
        if chunk != self.chunk:
            self.current, self.chunk = self._distorted(chunk), chunk
        images, labels = self.current
        rank, world = self.share
        digits = self.batch // world
        first = place * self.batch + rank * digits
        return images[first : first + digits], labels[first : first + digits]

    def _distorted(self, chunk: int) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, theta = self._drawn(chunk)
        labels = torch.from_numpy(self.labels[chosen].astype(np.int64)).to(self.device)
        if self.device.type == "cpu":
            images = self.distortion.apply(mnist.to_input(self.images[chosen]), theta)
            return torch.from_numpy(images), labels
        pixels = self.pixels[torch.from_numpy(chosen).to(self.device)]
        return self.distortion.apply(pixels[:, None].float() / 255, theta), labels

    def _drawn(self, chunk: int) -> tuple[np.ndarray, np.ndarray]:
        rest = (len(self.images), self.distortion, self.steps * self.batch, self.seed)
        if self.draw_with is None:
            return _draw(chunk, *rest)
        self.drawn = {
            ahead: self.drawn.get(ahead) or self.draw_with.submit(_draw, ahead, *rest)
            for ahead in range(chunk, chunk + AHEAD)
        }
        return self.drawn.pop(chunk).result()


def _draw(
    chunk: int, digits: int, distortion: BaseDistortion, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return which digits a chunk holds, and what is random about their distortion."""
    rng = np.random.default_rng([seed, chunk])
    return rng.integers(0, digits, count), distortion.theta(count, rng)


def split() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return MNIST's training set in two: images and labels to learn from, 55,000, and to validate with, 5,000.

    Examples
    --------
    >>> [len(labels) for _, labels in split()]
    [55000, 5000]
    """
    images, labels = mnist.load("train")
    return (images[:-VALIDATION], labels[:-VALIDATION]), (
        images[-VALIDATION:],
        labels[-VALIDATION:],
    )


def distorted(
    images: np.ndarray,
    labels: np.ndarray,
    distortion: BaseDistortion,
    seed: int = TEST_SEED,
    device: torch.device | str = "cpu",
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Return a fixed distorted set, each digit once, for validation or the test.

    Parameters
    ----------
    images : array of uint8, shape (N, 28, 28)
    labels : array of integers, shape (N,)
    distortion : BaseDistortion
    seed : int, optional
        By default, that of every test set in this package.
    device : torch.device or str, default "cpu"
        Where the images go. They are distorted on the CPU: the same pixels for every device.

    Returns
    -------
    images : tensor of float32, shape (N, 1, H, W)
    labels : tensor of int64, shape (N,)
    theta : array
        What distorted them (`BaseDistortion.theta`).

    Examples
    --------
    >>> from stnlib.data.distortions import R
    >>> distorted(np.zeros((3, 28, 28), np.uint8), np.arange(3), R)[0].shape
    torch.Size([3, 1, 28, 28])
    """
    theta = distortion.theta(len(images), np.random.default_rng(seed))
    parts = [
        distortion.apply(mnist.to_input(images[i : i + 1000]), theta[i : i + 1000])
        for i in range(0, len(images), 1000)
    ]
    return (
        torch.from_numpy(np.concatenate(parts)).to(device),
        torch.from_numpy(labels.astype(np.int64)).to(device),
        theta,
    )
