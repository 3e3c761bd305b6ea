"""The spatial transformer as a module that drops into any network (chapter 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import avg_pool2d
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from .._arrays import require_number, require_shape, require_size
from ..coordinates import normalise, unnormalise
from ..interpolation import Kernel
from ..options import resolve
from ..transforms import Affine, Family, compose
from ..transforms.families import require_family
from ..transforms.linear import Linear
from .functional import affine_sample, grid_sample


class SpatialTransformer(nn.Module):
    """Look at the input, decide on a transform, and return the input transformed.

    The three parts of figure 2 of the paper: a localisation network regresses theta from the input, the family of
    transforms generates a grid from theta, and the sampler reads the input at the grid.

    Parameters
    ----------
    localisation : torch.nn.Module
        From the input, (N, C, H, W) or (N, C, D, H, W), to theta, (N, P). Its last linear layer must have P outputs and
        be the last thing that happens to theta; it is set to the identity transform (see `initialise_identity`), so
        that the module starts by changing nothing, unless initial says otherwise. Load trained weights after this
        module is made.
    transform : stnlib.transforms.Family, optional
        The family of transforms, with P parameters; by default, affine. One that is a module itself, such as
        `LearnedBasis`, is trained along.
    size : (H, W) or (D, H, W), optional
        Size of the sampling grid in pixels, which is the output's before downsampling; by default, the input's.
    bounds : float or array of shape (P,), optional
        How far, at most, each number of theta may go from where it starts, the same for all or each its own: positive.
        By default, as far as it likes.
    initial : array of shape (P,) or "keep", optional
        Where theta starts; by default, at the identity. "keep" leaves the localisation network as it is, and asks
        nothing of its layers; bounds are then about the identity.
    downsample : int, default 1
        Each block of so many pixels along every axis is averaged after sampling. What is left over at the far ends of
        the axes is dropped.
    mode, padding_mode, align_corners, fill_value, antialias
        As for `stnlib.nn.functional.grid_sample`.

    Raises
    ------
    TypeError
        If localisation is not a module, transform not a family, or an option of another type than it should be.
    ValueError
        If localisation has no linear layer, the one registered last does not have P outputs or is parametrised, or an
        option or the size does not fit.

    Notes
    -----
    Section 3 of Jaderberg et al. (2015); its appendix A.3 averages by two after sampling. Coordinates are computed in
    float64 from the theta that the localisation network returns; under autocast both the network and the sampler run in
    float32.

    With bounds b, a network that returns r, and a start at s, theta is s + b tanh((r - s) / b). At the start that
    changes neither theta nor its gradient, as a tanh of r alone would.

    Derived in chapter 5.

    Examples
    --------
    >>> localisation = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 32), nn.ReLU(), nn.Linear(32, 6))
    >>> transformer = SpatialTransformer(localisation, size=(14, 14))
    >>> transformer(torch.rand(5, 1, 28, 28)).shape
    torch.Size([5, 1, 14, 14])

    A window of half the size, whose theta may change by 0.4, and goes to the next layer too:

    >>> from stnlib.transforms import Attention
    >>> localisation = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 3))
    >>> window = SpatialTransformer(localisation, Attention(), initial=[0.5, 0, 0], bounds=0.4, downsample=2)
    >>> output, theta = window(torch.rand(5, 1, 28, 28), return_theta=True)
    >>> output.shape, theta[0].detach()
    (torch.Size([5, 1, 14, 14]), tensor([0.5000, 0.0000, 0.0000]))
    """

    bounds: torch.Tensor | None
    start: torch.Tensor  # where there are bounds

    def __init__(
        self,
        localisation: nn.Module,
        transform: Family | None = None,
        size: Sequence[int] | None = None,
        *,
        bounds: Any = None,
        initial: Any = None,
        downsample: int = 1,
        mode: str | Kernel = "bilinear",
        padding_mode: str = "zeros",
        align_corners: bool = False,
        fill_value: float = 0.0,
        antialias: bool | float = False,
    ) -> None:
        super().__init__()
        if not isinstance(localisation, nn.Module):
            raise TypeError(
                f"localisation: expected a torch.nn.Module, got {type(localisation).__name__}"
            )
        transform = Affine() if transform is None else transform
        require_family(transform, "transform")
        options: dict[str, Any] = {
            "mode": mode,
            "padding_mode": padding_mode,
            "align_corners": align_corners,
            "fill_value": fill_value,
            "antialias": antialias,
        }
        resolve(**options)
        self.localisation = localisation
        self.transform = transform
        self.size = (
            None
            if size is None
            else require_size(size, "size", getattr(transform, "dimensions", 2))
        )
        self.options = options
        self.downsample = _read_downsample(downsample)
        limits, start = _read_bounds(bounds, transform), _read_initial(initial, transform)
        if not isinstance(initial, str):
            initialise_identity(localisation, transform)
            with torch.no_grad():
                _last_layer(localisation, transform).bias.copy_(start)
        weight = next(localisation.parameters(), start)
        # Not saved: weights that were trained without bounds can be loaded, and the other way round.
        for name, value in (("bounds", limits), ("start", start)):
            value = None if limits is None else value.to(weight.device, weight.dtype)
            self.register_buffer(name, value, persistent=False)

    def forward(
        self, input: torch.Tensor, return_theta: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Return the input, (N, C, H, W) or (N, C, D, H, W), transformed, and on request the theta that did it.

        Parameters
        ----------
        input : tensor of float32 or float64, shape (N, C, H, W) or (N, C, D, H, W)
        return_theta : bool, default False

        Returns
        -------
        output : tensor of input's dtype (float32 under autocast)
            Shape (N, C, H_out, W_out) or (N, C, D_out, H_out, W_out): size's, divided by downsample and rounded down.
        theta : tensor of the dtype that the localisation network returns, shape (N, P)
            Only with return_theta: what was sampled, within bounds. Gradients flow through it.

        Raises
        ------
        TypeError, ValueError
            If input, or the theta that the localisation network returns, is not such a tensor, or the grid has a side
            shorter than downsample.
        """
        device = input.device.type
        if torch.is_autocast_enabled(device):
            input = input.float()
        with torch.autocast(device, enabled=False):  # which would take half of theta's digits
            theta = self._bounded(self.localisation(input))
            output = self.sample(input, theta)
        return (output, theta) if return_theta else output

    def sample(self, input: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        """Return the input transformed by a theta, (N, P), that is given rather than regressed.

        Parameters
        ----------
        input : tensor of float32 or float64, shape (N, C, H, W) or (N, C, D, H, W)
        theta : tensor, shape (N, P)
            Parameters of the family of transforms, which bounds do not change.

        Returns
        -------
        tensor of input's dtype, shape (N, C, H_out, W_out) or (N, C, D_out, H_out, W_out)

        Raises
        ------
        TypeError, ValueError
            If input or theta is not such a tensor, or the grid has a side shorter than downsample.
        """
        if not isinstance(theta, torch.Tensor):
            raise TypeError(f"theta: expected a PyTorch tensor, got {type(theta).__name__}")
        if len(theta) != len(input):
            raise ValueError(f"theta: expected a batch of {len(input)}, got {len(theta)}")
        size = tuple(input.shape[2:]) if self.size is None else self.size
        theta = theta.to(torch.float64)
        if isinstance(self.transform, Linear):
            output = affine_sample(input, self.transform.matrix(theta), size, **self.options)
        else:
            corners = self.options["align_corners"]
            grid = self.transform.grid(theta, size, align_corners=corners)
            output = grid_sample(input, grid, **self.options)
        return output if self.downsample == 1 else _average(output, self.downsample)

    def _bounded(self, theta: torch.Tensor) -> torch.Tensor:
        """Return what the localisation network returned, kept near its start if there are bounds."""
        if self.bounds is None or not isinstance(theta, torch.Tensor):
            return theta
        require_shape(theta, "theta", f"(N, {self.transform.num_parameters})")
        start, bounds = self.start.to(theta.dtype), self.bounds.to(theta.dtype)
        return start + bounds * torch.tanh((theta - start) / bounds)

    def extra_repr(self) -> str:
        """Say what the module's line in a printed network shows."""
        options: dict[str, Any] = {"transform": self.transform, "size": self.size}
        if self.bounds is not None:
            options["bounds"] = self.bounds
        if self.downsample > 1:
            options["downsample"] = self.downsample
        return ", ".join(
            f"{name}={value!r}" for name, value in (options | self.options).items()
        )


def initialise_identity(localisation: nn.Module, transform: Family) -> None:
    """Set the last linear layer of a localisation network to zero weights and the identity's parameters as its bias.

    Parameters
    ----------
    localisation : torch.nn.Module
        Its last linear layer must have as many outputs as transform has parameters, and a bias.
    transform : stnlib.transforms.Family

    Raises
    ------
    ValueError
        If there is no such layer.

    Notes
    -----
    Section 4.1 of Jaderberg et al. (2015) starts from the identity in this way. Nothing may follow the layer: a tanh
    after it would turn the identity's 1 into 0.76.

    Examples
    --------
    >>> layer = nn.Linear(4, 6)
    >>> initialise_identity(layer, Affine())
    >>> layer(torch.rand(1, 4)).detach()
    tensor([[1., 0., 0., 0., 1., 0.]])
    """
    last = _last_layer(localisation, transform)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.as_tensor(transform.identity()))


def _last_layer(localisation: nn.Module, transform: Family) -> nn.Linear:
    """Return the linear layer that was registered last; raise unless it can return a theta of the family."""
    layers = [module for module in localisation.modules() if isinstance(module, nn.Linear)]
    expected = f"{transform.num_parameters} outputs and a bias, as {transform} needs"
    if not layers:
        raise ValueError(
            f"localisation: expected a last linear layer with {expected}, got no linear layer"
        )
    last = layers[-1]
    if is_parametrized(last) or is_lazy(last.weight):
        raise ValueError(
            f"localisation: expected a plain last linear layer, got {last}, whose weights are not its own yet; "
            f"give it its sizes, and parametrise it after the module is made"
        )
    if last.out_features != transform.num_parameters or last.bias is None:
        raise ValueError(
            f"localisation: expected a last linear layer with {expected}, got {last}"
        )
    return last


def parameter_groups(
    network: nn.Module, learning_rate: float, localisation: float = 1.0, **options: Any
) -> list[dict[str, Any]]:
    """Return a network's parameters in groups for an optimiser, so that localisation networks learn at another rate.

    Parameters
    ----------
    network : torch.nn.Module
        Holds spatial transformers anywhere, or none.
    learning_rate : float
        Of everything outside localisation networks: positive.
    localisation : float, default 1.0
        Factor on the learning rate of what each `SpatialTransformer` of the network has as its localisation network,
        with all inside it, other transformers included: positive.
    **options
        Options of the optimiser that are the same in all groups, such as ``weight_decay``.

    Returns
    -------
    list of dict
        One group named ``"rest"`` and one named ``"localisation"``, each if there is something in it. A parameter that
        learns stands in one of them, once; one that a localisation network shares with the rest, in the localisation
        networks' group; one that needs no gradient, in none.

    Raises
    ------
    TypeError
        If network is not a module, a rate not a number, or an option one that the groups set.
    ValueError
        If a rate is not positive, or network has nothing to train.

    Notes
    -----
    A small change of theta moves every pixel, so localisation networks often need a lower rate: see chapter 5.

    Examples
    --------
    >>> localisation = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))
    >>> network = nn.Sequential(SpatialTransformer(localisation), nn.Flatten(), nn.Linear(64, 10))
    >>> groups = parameter_groups(network, 1e-2, localisation=0.1, weight_decay=1e-4)
    >>> [(group["name"], group["lr"], len(group["params"])) for group in groups]
    [('rest', 0.01, 2), ('localisation', 0.001, 2)]
    >>> optimiser = torch.optim.SGD(groups)
    """
    if not isinstance(network, nn.Module):
        raise TypeError(f"network: expected a torch.nn.Module, got {type(network).__name__}")
    for name, rate in (("learning_rate", learning_rate), ("localisation", localisation)):
        require_number(rate, name, "a positive number", lambda rate: 0 < rate < math.inf)
    taken = sorted({"params", "lr", "name"} & options.keys())
    if taken:
        raise TypeError(f"options: expected none that the groups set, got {', '.join(taken)}")
    located = {
        parameter
        for module in network.modules()
        if isinstance(module, SpatialTransformer)
        for parameter in module.localisation.parameters()
    }
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not learning:
        raise ValueError("network: expected parameters that require gradients, got none")
    groups = [
        {
            "name": "rest",
            "lr": learning_rate,
            "params": [p for p in learning if p not in located],
        },
        {
            "name": "localisation",
            "lr": learning_rate * localisation,
            "params": [p for p in learning if p in located],
        },
    ]
    return [group | options for group in groups if group["params"]]


def total_matrix(network: nn.Module, input: torch.Tensor) -> torch.Tensor:
    """Return what the spatial transformers of a network do together: their matrices, multiplied out, for drawing.

    Parameters
    ----------
    network : torch.nn.Module
        Holds one or more `SpatialTransformer`, one after the other, each of a family of matrices. Layers between them
        must keep what they look at in its place, as convolutions with padding and pooling do.
    input : tensor
        A batch for the network, which is run once, in evaluation mode and without gradients.

    Returns
    -------
    tensor of float64, shape (N, 2, 3) or (N, 3, 4)
        From the last transformer's output, after its downsampling, to the first one's input, in normalised coordinates.

    Raises
    ------
    TypeError
        If a transformer's family is not linear.
    ValueError
        If network uses no spatial transformer.

    Notes
    -----
    Derived in chapter 6.

    Examples
    --------
    >>> from stnlib.transforms import Attention
    >>> network = nn.Sequential(
    ...     *(SpatialTransformer(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), Attention()) for _ in range(2))
    ... )
    >>> total_matrix(network, torch.rand(5, 1, 8, 8))[0]
    tensor([[1., 0., 0.],
            [0., 1., 0.]], dtype=torch.float64)
    """
    matrices: list[torch.Tensor] = []
    transformers = [
        module for module in network.modules() if isinstance(module, SpatialTransformer)
    ]
    for module in transformers:
        if not isinstance(module.transform, Linear):
            raise TypeError(
                f"network: expected transformers of matrices, got one of {module.transform}"
            )

    def noting(module: SpatialTransformer) -> Any:
        def sample(input: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
            matrices.append(module.transform.matrix(theta.to(torch.float64)))  # type: ignore[attr-defined]
            if module.downsample > 1:
                size = tuple(input.shape[2:]) if module.size is None else module.size
                matrices.append(_averaging(size, module).to(theta.device))
            return SpatialTransformer.sample(module, input, theta)

        return sample

    training = {module: module.training for module in network.modules()}
    try:
        network.eval()
        for module in transformers:
            module.sample = noting(module)  # type: ignore[method-assign]
        with torch.no_grad():
            network(input)
    finally:
        for module in transformers:
            module.__dict__.pop("sample", None)
        for part, was in training.items():
            part.training = was
    if not matrices:
        raise ValueError("network: expected one that uses spatial transformers, got none")
    return compose(*matrices)


def _read_downsample(factor: Any) -> int:
    """Return a whole number of at least 1; raise if it is none."""
    expected = "a whole number of at least 1"
    require_number(factor, "downsample", expected, lambda k: k >= 1 and k % 1 == 0)
    return int(factor)


def _read_bounds(bounds: Any, transform: Family) -> Any:
    """Return positive numbers, one or as many as the family has parameters, as a tensor of float64; None for None."""
    if bounds is None:
        return None
    count = transform.num_parameters
    expected = f"bounds: expected a positive number, or {count} of them as {transform} needs"
    limits = _numbers(bounds)
    if limits is None:
        raise TypeError(f"{expected}, got {bounds!r}")
    if limits.shape not in ((), (count,)) or not (limits > 0).all() or limits.max() == math.inf:
        raise ValueError(f"{expected}, got {bounds!r}")
    return torch.as_tensor(limits)


def _read_initial(initial: Any, transform: Family) -> torch.Tensor:
    """Return as many numbers as the family has parameters, the identity's if none are given, as a tensor of float64."""
    if initial is None or (isinstance(initial, str) and initial == "keep"):
        return torch.as_tensor(transform.identity(), dtype=torch.float64)
    count = transform.num_parameters
    expected = f'initial: expected {count} numbers, as {transform} needs, or "keep"'
    start = _numbers(initial)
    if start is None:
        raise TypeError(f"{expected}, got {initial!r}")
    if start.shape != (count,) or not np.isfinite(start).all():
        raise ValueError(f"{expected}, got {initial!r}")
    return torch.as_tensor(start)


def _numbers(value: Any) -> np.ndarray | None:
    """Return a number or an array of them in float64, a new array; None if it is neither."""
    try:
        given = np.asarray(value.tolist() if isinstance(value, torch.Tensor) else value)
    except ValueError:  # rows of different lengths
        return None
    return given.astype(np.float64) if given.dtype.kind in "iuf" else None


def _average(images: torch.Tensor, factor: int) -> torch.Tensor:
    """Return the mean of each block of pixels, as long as factor along every axis, of images or volumes."""
    shape = tuple(images.shape[2:])
    if factor > min(shape):
        raise ValueError(
            f"downsample: expected at most {min(shape)}, the shortest side of a grid of {shape}, got {factor}"
        )
    if images.ndim == 4:
        return avg_pool2d(images, factor)
    # In two steps: avg_pool3d has no gradient on a GPU that repeats itself.
    planes = avg_pool2d(images.flatten(1, 2), factor).unflatten(1, images.shape[1:3])
    return avg_pool2d(planes.flatten(3), (factor, 1)).unflatten(3, planes.shape[3:])


def _averaging(size: Sequence[int], module: SpatialTransformer) -> torch.Tensor:
    """Return the matrix from a module's output to its sampling grid, both in normalised coordinates."""
    factor, corners = module.downsample, module.options["align_corners"]
    matrix = torch.zeros(len(size), len(size) + 1, dtype=torch.float64)
    for axis, length in enumerate(reversed(size)):
        low, high = (
            normalise(
                factor * unnormalise(end, length // factor, align_corners=corners)
                + (factor - 1) / 2,
                length,
                align_corners=corners,
            )
            for end in (-1.0, 1.0)
        )
        matrix[axis, axis], matrix[axis, -1] = (high - low) / 2, (high + low) / 2
    return matrix
