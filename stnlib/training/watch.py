"""How a training watches itself: the loss, and what the transformers do (chapter 5)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from ..nn.spatial_transformer import SpatialTransformer

DEAD = 1e-4  # a spread of theta below it means that all inputs are treated alike
OUTSIDE = 0.5  # part of the grid's points beyond the frame above which it looks away


class TrainingWarning(UserWarning):
    """Something about a training that will not mend itself."""


@torch.no_grad()
def regressed_thetas(network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the thetas, (N, P), that each spatial transformer of a network uses on images, by the module's name.

    Parameters
    ----------
    network : torch.nn.Module
        It is run once, in evaluation mode; each module is left in the mode in which it came.
    images : tensor
        A batch for the network.

    Returns
    -------
    dict of tensors
        Empty for a network without spatial transformers.

    Examples
    --------
    >>> from stnlib.nn.models import STFCN
    >>> {name: theta.shape for name, theta in regressed_thetas(STFCN(), torch.rand(5, 1, 42, 42)).items()}
    {'transformer': torch.Size([5, 6])}
    """
    found: dict[str, torch.Tensor] = {}

    def keep(name: str, transformer: SpatialTransformer) -> Any:
        def hook(module: nn.Module, inputs: Any, theta: torch.Tensor) -> None:
            found[name] = transformer._bounded(theta)

        return hook

    hooks = [
        module.localisation.register_forward_hook(keep(name, module))
        for name, module in network.named_modules()
        if isinstance(module, SpatialTransformer)
    ]
    modes = [(module, module.training) for module in network.modules()]
    try:
        if hooks:
            network.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    return found


@torch.no_grad()
def statistics(network: nn.Module, images: torch.Tensor) -> dict[str, dict[str, float]]:
    """Return what each spatial transformer of a network does to images, in two numbers.

    Parameters
    ----------
    network : torch.nn.Module
    images : tensor

    Returns
    -------
    dict of dict
        By the transformer's name: ``spread``, the standard deviation of theta over the images, the mean over its
        parameters; and ``outside``, which part of the grid's points lies beyond the frame, from 0 to 1.

    Examples
    --------
    >>> from stnlib.nn.models import STFCN
    >>> statistics(STFCN(), torch.rand(5, 1, 42, 42))
    {'transformer': {'spread': 0.0, 'outside': 0.0}}
    """
    found = {}
    transformers = dict(network.named_modules())
    for name, theta in regressed_thetas(network, images).items():
        transformer: Any = transformers[name]
        dimensions = getattr(transformer.transform, "dimensions", 2)
        grid = transformer.transform.grid(theta.double(), (16,) * dimensions)
        outside = (grid.abs() > 1).any(-1)
        found[name] = {
            "spread": round(theta.float().std(0, correction=0).mean().item(), 6),
            "outside": round(outside.double().mean().item(), 6),
        }
    return found


def complaints(found: dict[str, dict[str, float]], warmed_up: bool = True) -> list[str]:
    """Return a sentence for each thing that is wrong with transformers, and what usually helps.

    Parameters
    ----------
    found : dict
        As `statistics` returns it.
    warmed_up : bool, default True
        Whether the learning rate has been at its peak. Before, a theta that is still the identity's is no fault.

    Returns
    -------
    list of str

    Examples
    --------
    >>> healthy, dead = {"spread": 0.1, "outside": 0.0}, {"spread": 0.0, "outside": 0.0}
    >>> complaints({"transformer": healthy})
    []
    >>> complaints({"transformer": dead})[0][:60]
    'transformer: theta is the same for every image (its spread i'
    """
    sentences = []
    for name, values in found.items():
        spread, outside = values["spread"], values["outside"]
        if not math.isfinite(spread):
            sentences.append(
                f"{name}: theta is not a finite number; a lower learning rate of the localisation network usually "
                f"helps, or a clip of 1 for the gradient"
            )
        elif warmed_up and spread < DEAD:
            sentences.append(
                f"{name}: theta is the same for every image (its spread is {spread:.1g}): the localisation network has "
                f"died; a clip of 1 for the gradient and a longer warm-up usually help, or a lower rate for it"
            )
        if outside > OUTSIDE:
            sentences.append(
                f"{name}: {100 * outside:.0f} % of the grid lies beyond the frame: the transformer zooms out or looks "
                f"away; a background of 0, a lower rate for the localisation network or bounds on theta usually help"
            )
    return sentences
