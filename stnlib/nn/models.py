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
LOCALISATION_FILTERS = 20
LARGE = 32  # pixels along both axes, above which a convolutional localisation network first pools its input by two
DIGIT = (28, 28)


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


class CNN(nn.Module):
    """The paper's convolutional network: convolutions of 9×9 and of 7×7, each with ReLU and pooling, and a classifier.

    Parameters
    ----------
    size : (H, W), default (42, 42)
        Size of the input images, in pixels; at least 24 a side, so that something is left after both poolings.
    parameters : int, default 400_000
        Budget; the convolutions get the most filters that it allows, both numbers multiples of 8, and the second at
        least the first and at most twice as many.

    Raises
    ------
    ValueError
        If the images are too small, or the budget does not pay for 8 filters a layer.

    Notes
    -----
    Appendix A.3 of Jaderberg et al. (2015) gives about 400,000 parameters and 32 to 64 filters, which do not go
    together: 64 filters of each kind make 220,000. The budget is kept. Used in chapter 7.

    Examples
    --------
    >>> network = CNN()
    >>> network(torch.rand(5, 1, 42, 42)).shape, count_parameters(network)
    (torch.Size([5, 10]), 398930)
    """

    def __init__(self, size: tuple[int, int] = (42, 42), parameters: int = 400_000) -> None:
        super().__init__()
        left = [((length - 8) // 2 - 6) // 2 for length in require_size(size, "size")]
        if min(left) < 1:
            raise ValueError(
                f"size: expected at least 24 pixels a side, for two convolutions and two poolings, got {size}"
            )
        places = left[0] * left[1]
        first, second = _filters(places, parameters)
        self.layers = nn.Sequential(
            nn.Conv2d(1, first, 9),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 7),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(second * places, CLASSES),
        )

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the logits, (N, 10), of images, (N, 1, H, W)."""
        return self.layers(input)


class STCNN(nn.Module):
    """The paper's ST-CNN: a spatial transformer with a convolutional localisation network, and a `CNN`.

    The transformer hands on 28×28 pixels, the size of a digit, whatever the size of the frame. The localisation network
    has two convolutions of 5×5 with 20 filters, each with ReLU and pooling, a hidden layer of 32 units, and a linear
    layer that regresses theta. Frames of more than 32 pixels along both axes it sees pooled by two.

    Parameters
    ----------
    size : (H, W), default (42, 42)
        Size of the input images, in pixels; at least 16 a side.
    parameters : int, default 400_000
        Budget for the whole network, the localisation network included.
    transform : stnlib.transforms.Family, optional
        The family of transforms; by default, affine.

    Raises
    ------
    ValueError
        If the images are too small, or the budget does not pay for 8 filters a layer.

    Notes
    -----
    Appendix A.3 of Jaderberg et al. (2015), which pools by two behind the transformer instead. On 21×21 pixels that
    leaves the 7×7 convolution one position, and on 14×14 none. Used in chapter 7.

    Examples
    --------
    >>> network = STCNN()
    >>> network(torch.rand(5, 1, 42, 42)).shape, count_parameters(network)
    (torch.Size([5, 10]), 399828)
    """

    def __init__(
        self,
        size: tuple[int, int] = (42, 42),
        parameters: int = 400_000,
        transform: Family | None = None,
    ) -> None:
        super().__init__()
        transform = Affine() if transform is None else transform
        lengths = require_size(size, "size")
        first = 2 if min(lengths) > LARGE else 1
        left = [((length // first - 4) // 2 - 4) // 2 for length in lengths]
        if min(left) < 1:
            raise ValueError(
                f"size: expected at least 16 pixels a side, for the localisation network, got {size}"
            )
        filters, units = LOCALISATION_FILTERS, LOCALISATION_UNITS
        localisation = nn.Sequential(
            nn.AvgPool2d(first),
            nn.Conv2d(1, filters, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(filters, filters, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(filters * left[0] * left[1], units),
            nn.ReLU(),
            nn.Linear(units, transform.num_parameters),
        )
        self.transformer = SpatialTransformer(localisation, transform, DIGIT)
        self.classifier = CNN(DIGIT, parameters - count_parameters(localisation))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the logits, (N, 10), of images, (N, 1, H, W)."""
        return self.classifier(self.transformer(input))


MODELS: dict[str, type[nn.Module]] = {
    "fcn": FCN,
    "cnn": CNN,
    "st-fcn": STFCN,
    "st-cnn": STCNN,
}
"""The paper's networks for distorted MNIST by their names in commands and records."""


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


def _filters(places: int, parameters: int) -> tuple[int, int]:
    """Return the filters f and g of two convolutions that make the most of 82 f + g (49 f + 1) + 10 (g places + 1).

    Both are multiples of 8, with which processors work at full speed, and g lies between f and twice f.
    """
    found = []
    for f in range(8, math.isqrt(max(parameters, 0) // 49) + 1, 8):
        g = (parameters - CLASSES - 82 * f) // (49 * f + 1 + CLASSES * places) // 8 * 8
        if f <= g:
            g = min(g, 2 * f)
            found.append((82 * f + g * (49 * f + 1 + CLASSES * places), f, g))
    if not found:
        raise ValueError(
            f"parameters: {parameters} do not pay for eight filters a layer, with {places} places behind them"
        )
    return max(found)[1:]
