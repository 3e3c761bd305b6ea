"""The paper's networks for distorted MNIST (appendix A.3), sized for a budget of parameters (chapter 5)."""

from __future__ import annotations

import math

import torch
from torch import nn

from .._arrays import require_size
from ..transforms import Affine, Family
from .spatial_transformer import SpatialTransformer

CLASSES = 10
LOCALISATION_UNITS = 32


class FCN(nn.Module):
    """The paper's fully connected network: two hidden layers with ReLU, and a classifier.

    Parameters
    ----------
    size : (H, W), default (42, 42)
        Size of the input images, in pixels.
    parameters : int, default 400_000
        Budget; both hidden layers get the most units that it allows.

    Raises
    ------
    ValueError
        If the budget does not pay for one unit a layer.

    Notes
    -----
    Appendix A.3 of Jaderberg et al. (2015) gives about 400,000 parameters and 128 to 256 units. Used in chapter 5.

    Examples
    --------
    >>> network = FCN()
    >>> network(torch.rand(5, 1, 42, 42)).shape, count_parameters(network)
    (torch.Size([5, 10]), 399566)
    """

    def __init__(self, size: tuple[int, int] = (42, 42), parameters: int = 400_000) -> None:
        super().__init__()
        height, width = require_size(size, "size")
        pixels = height * width
        units = _hidden_units(pixels, parameters)
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(pixels, units),
            nn.ReLU(),
            nn.Linear(units, units),
            nn.ReLU(),
            nn.Linear(units, CLASSES),
        )

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the logits, (N, 10), of images, (N, 1, H, W)."""
        return self.layers(input)


class STFCN(nn.Module):
    """The paper's ST-FCN: a spatial transformer, average pooling by two, and an `FCN`.

    The localisation network has three hidden layers of 32 units and a linear layer that regresses theta.

    Parameters
    ----------
    size : (H, W), default (42, 42)
        Size of the input images, in pixels.
    parameters : int, default 400_000
        Budget for the whole network, the localisation network included.
    transform : stnlib.transforms.Family, optional
        The family of transforms; by default, affine.

    Raises
    ------
    ValueError
        If the budget does not pay for one unit a layer.

    Notes
    -----
    Appendix A.3 of Jaderberg et al. (2015). The paper's fully connected networks have 128 to 256 units a layer; on a
    pooled 21×21 image, 400,000 parameters pay for more, and the budget is kept. Used in chapter 5.

    Examples
    --------
    >>> network = STFCN()
    >>> network(torch.rand(5, 1, 42, 42)).shape, count_parameters(network)
    (torch.Size([5, 10]), 400000)
    """

    def __init__(
        self,
        size: tuple[int, int] = (42, 42),
        parameters: int = 400_000,
        transform: Family | None = None,
    ) -> None:
        super().__init__()
        transform = Affine() if transform is None else transform
        height, width = require_size(size, "size")
        units = LOCALISATION_UNITS
        localisation = nn.Sequential(
            nn.Flatten(),
            nn.Linear(height * width, units),
            nn.ReLU(),
            nn.Linear(units, units),
            nn.ReLU(),
            nn.Linear(units, units),
            nn.ReLU(),
            nn.Linear(units, transform.num_parameters),
        )
        self.transformer = SpatialTransformer(localisation, transform)
        self.pool = nn.AvgPool2d(2)
        pooled, spent = (
            require_size((height // 2, width // 2), "size, pooled by two,"),
            count_parameters(localisation),
        )
        _hidden_units(
            pooled[0] * pooled[1], parameters, spent
        )  # refuses a budget that is too small
        self.classifier = FCN(pooled, parameters - spent)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the logits, (N, 10), of images, (N, 1, H, W)."""
        return self.classifier(self.pool(self.transformer(input)))


def count_parameters(network: nn.Module) -> int:
    """Return how many numbers a network learns.

    Parameters
    ----------
    network : torch.nn.Module

    Returns
    -------
    int

    Examples
    --------
    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    return sum(
        parameter.numel() for parameter in network.parameters() if parameter.requires_grad
    )


def _hidden_units(pixels: int, parameters: int, spent: int = 0) -> int:
    """Return the most units u for which u (pixels + 1) + u (u + 1) + 10 (u + 1) stays within what is left to spend."""
    linear = pixels + 2 + CLASSES
    room = linear**2 + 4 * (parameters - spent - CLASSES)
    units = (math.isqrt(room) - linear) // 2 if room > 0 else 0
    if units < 1:
        raise ValueError(
            f"parameters: {parameters} do not pay for one hidden unit a layer on {pixels} pixels"
        )
    return units
