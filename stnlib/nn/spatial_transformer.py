"""The spatial transformer as a module that drops into any network (chapter 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from .._arrays import require_size
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
        that the module starts by changing nothing. Load trained weights after this module is made.
    transform : stnlib.transforms.Family, optional
        The family of transforms, with P parameters; by default, affine. One that is a module itself, such as
        `LearnedBasis`, is trained along.
    size : (H, W) or (D, H, W), optional
        Size of the output in pixels; by default, the input's.
    mode, padding_mode, align_corners, fill_value, antialias
        As for `stnlib.nn.functional.grid_sample`.

    Raises
    ------
    TypeError
        If localisation is not a module, or transform not a family.
    ValueError
        If localisation has no linear layer, the one registered last does not have P outputs or is parametrised, or an
        option or the size does not fit.

    Notes
    -----
    Section 3 of Jaderberg et al. (2015). Coordinates are computed in float64 from the theta that the localisation
    network returns; under autocast both the network and the sampler run in float32.
    Derived in chapter 5.

    Examples
    --------
    >>> localisation = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 32), nn.ReLU(), nn.Linear(32, 6))
    >>> transformer = SpatialTransformer(localisation, size=(14, 14))
    >>> transformer(torch.rand(5, 1, 28, 28)).shape
    torch.Size([5, 1, 14, 14])
    """

    def __init__(
        self,
        localisation: nn.Module,
        transform: Family | None = None,
        size: Sequence[int] | None = None,
        *,
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
        initialise_identity(localisation, self.transform)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the input, (N, C, H, W) or (N, C, D, H, W), transformed.

        Parameters
        ----------
        input : tensor of float32 or float64, shape (N, C, H, W) or (N, C, D, H, W)

        Returns
        -------
        tensor of input's dtype (float32 under autocast), shape (N, C, H_out, W_out) or (N, C, D_out, H_out, W_out)

        Raises
        ------
        TypeError, ValueError
            If input, or the theta that the localisation network returns, is not such a tensor.
        """
        device = input.device.type
        if torch.is_autocast_enabled(device):
            input = input.float()
        with torch.autocast(device, enabled=False):  # which would take half of theta's digits
            return self.sample(input, self.localisation(input))

    def sample(self, input: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        """Return the input transformed by a theta, (N, P), that is given rather than regressed.

        Parameters
        ----------
        input : tensor of float32 or float64, shape (N, C, H, W) or (N, C, D, H, W)
        theta : tensor, shape (N, P)
            Parameters of the family of transforms.

        Returns
        -------
        tensor of input's dtype, shape (N, C, H_out, W_out) or (N, C, D_out, H_out, W_out)

        Raises
        ------
        TypeError, ValueError
            If input or theta is not such a tensor.
        """
        if not isinstance(theta, torch.Tensor):
            raise TypeError(f"theta: expected a PyTorch tensor, got {type(theta).__name__}")
        if len(theta) != len(input):
            raise ValueError(f"theta: expected a batch of {len(input)}, got {len(theta)}")
        size = tuple(input.shape[2:]) if self.size is None else self.size
        theta = theta.to(torch.float64)
        if isinstance(self.transform, Linear):
            return affine_sample(input, self.transform.matrix(theta), size, **self.options)
        corners = self.options["align_corners"]
        grid = self.transform.grid(theta, size, align_corners=corners)
        return grid_sample(input, grid, **self.options)

    def extra_repr(self) -> str:
        """Say what the module's line in a printed network shows."""
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"transform={self.transform}, size={self.size}, {options}"


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
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.as_tensor(transform.identity()))


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
        From the last transformer's output to the first one's input, in normalised coordinates.

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
