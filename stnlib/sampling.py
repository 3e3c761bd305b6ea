"""The grid generator, the sampler and their derivatives: the reference, as chapters 1 to 3 derive it.

Convention: ``theta`` maps output (target) coordinates to input (source) coordinates, normalised, x before y (before z),
as in equation (1) of the paper. Coordinates are carried in float64 and pixels are blended in the image's dtype. The
same lines run on NumPy, CuPy and PyTorch arrays, in two dimensions and in three.

Each function has a vector-Jacobian product, ``…_vjp``, and a Jacobian-vector product, ``…_jvp``.
"""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from . import _arrays, engines, gather_scatter
from ._arrays import Array, computing_dtype, device, require_float, require_shape, to_float64
from .coordinates import (
    pixel_centres,
    pixel_matrix,
    pixel_matrix_vjp,
    pixels_per_unit,
    unnormalise,
)
from .footprint import readings, readings_jvp, readings_vjp
from .gather_scatter import Sampler, gather_jvp, position_gradient
from .interpolation import Kernel
from .options import (
    COORDINATES,
    Options,
    check_affine,
    check_affine_arrays,
    check_arrays,
    check_choice,
    check_like,
    check_like_output,
    check_needs,
    resolve,
)
from .prefilter import prefilter, prefilter_vjp


def affine_grid(
    theta: Array,
    size: Sequence[int],
    *,
    align_corners: bool = False,
    coordinates: str = "normalised",
) -> Array:
    """Generate the sampling grid of an affine transform: where in the input each output pixel is read.

    Parameters
    ----------
    theta : array of float32 or float64, shape (N, 2, 3), or (N, 3, 4) for volumes
        One matrix an image. Maps output coordinates (x, y, 1) to input coordinates (x, y); or (x, y, z, 1) to
        (x, y, z).
    size : (N, C, H, W) or (H, W); for volumes (N, C, D, H, W) or (D, H, W)
        Size of the output, in pixels.
    align_corners : bool, default False
        Where -1 and 1 lie: at the centres of the corner pixels (True) or at their outer edges (False).
    coordinates : {"normalised", "pixel"}, default "normalised"
        What theta maps. Pixel coordinates count from the centre of the first pixel, in the output and in the input.

    Returns
    -------
    array of theta's dtype, shape (N, H, W, 2) or (N, D, H, W, 3)
        Input coordinates, the last axis (x, y) or (x, y, z). Computed in float64 and rounded once.

    Raises
    ------
    TypeError
        If theta is not a float32 or float64 array.
    ValueError
        If theta, size or an option does not fit.

    Notes
    -----
    Equation (1) of Jaderberg et al. (2015). Derived in chapter 1. Agrees with
    ``torch.nn.functional.affine_grid``, whose default for ``align_corners`` it shares.

    Examples
    --------
    >>> import numpy as np
    >>> identity = np.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    >>> affine_grid(identity, (1, 2))
    array([[[[-0.5,  0. ],
             [ 0.5,  0. ]]]])
    """
    xp = _arrays.namespace(theta=theta)
    size = check_affine(theta, size, xp)
    check_choice("coordinates", coordinates, COORDINATES)
    targets = _targets(size, align_corners, coordinates, xp, device(theta))
    a = to_float64(theta, xp)
    a = xp.reshape(a, (a.shape[0], *[1] * len(size), *a.shape[1:]))  # to meet (*size, 1)
    grid = a[..., -1]
    for i in reversed(range(len(targets))):  # x last: what a row shares comes first
        grid = grid + a[..., i] * targets[i]
    return xp.astype(grid, theta.dtype, copy=False)


def affine_grid_vjp(
    grad_grid: Array, *, align_corners: bool = False, coordinates: str = "normalised"
) -> Array:
    """Return the vector-Jacobian product of `affine_grid`: the gradient of theta from that of the grid.

    The grid is linear in theta, so the Jacobian-vector product needs no function of its own: along a change of theta,
    the grid changes by ``affine_grid(change, size)``.

    Parameters
    ----------
    grad_grid : array of float32 or float64, shape (N, H, W, 2) or (N, D, H, W, 3)
        Gradient of a loss with respect to the grid.
    align_corners, coordinates
        As they were for `affine_grid`.

    Returns
    -------
    array of grad_grid's dtype, shape (N, 2, 3) or (N, 3, 4)
        Gradient of the loss with respect to theta, summed in float64.

    Raises
    ------
    TypeError
        If grad_grid is not a float32 or float64 array.
    ValueError
        If grad_grid has the wrong shape.

    Notes
    -----
    Each entry of the gradient is a sum over the output pixels of the grid's gradient times x, y or 1. Derived in
    chapter 3.

    Examples
    --------
    >>> import numpy as np
    >>> affine_grid_vjp(np.ones((1, 1, 2, 2)))
    array([[[0., 0., 2.],
            [0., 0., 2.]]])
    """
    xp = _arrays.namespace(grad_grid=grad_grid)
    require_float(xp, grad_grid=grad_grid)
    require_shape(grad_grid, "grad_grid", "(N, H, W, 2)", "(N, D, H, W, 3)")
    check_choice("coordinates", coordinates, COORDINATES)
    size = grad_grid.shape[1:-1]
    targets = _targets(size, align_corners, coordinates, xp, device(grad_grid))
    g, every = to_float64(grad_grid, xp), tuple(range(1, len(size) + 1))
    columns = [xp.sum(g * t, axis=every) for t in (*targets, xp.ones_like(targets[0]))]
    return xp.astype(xp.stack(columns, axis=-1), grad_grid.dtype, copy=False)


def grid_sample(
    input: Array,
    grid: Array,
    *,
    mode: str | Kernel = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
    coordinates: str = "normalised",
    fill_value: float | Array = 0.0,
    antialias: bool | float = False,
    engine: str | None = None,
) -> Array:
    """Sample images at the positions of a grid.

    Parameters
    ----------
    input : array of float32, float64, float16 or bfloat16, shape (N, C, H, W) or (N, C, D, H, W)
        The images U.
    grid : array of float32 or float64, shape (N, H_out, W_out, 2) or (N, D_out, H_out, W_out, 3)
        Where each output pixel is read: input coordinates, the last axis (x, y) or (x, y, z). At least as precise as
        the input: a float64 grid may go with float32 images, and keeps its precision. With half-precision images the
        grid may be of their dtype too.
    mode : str or Kernel, default "bilinear"
        The sampling kernel: "nearest", "bilinear" (in 3D, trilinear), "bicubic", "bspline2" to "bspline5",
        "gaussian", "lanczos", or an instance of a `stnlib.interpolation.Kernel`, for instance ``Bicubic(a=-0.5)`` or
        one of your own.
    padding_mode : {"zeros", "border", "reflection", "wrap", "mirror", "fill"}, default "zeros"
        What lies beyond the image: zeros; the nearest pixel of the border; the image's mirror image, the mirrors at
        the centres of the corner pixels with ``align_corners=True``, else at their outer edges; the image again; its
        mirror image about the corner pixels' centres in either case; or ``fill_value``.
    align_corners : bool, default False
        Where -1 and 1 lie: at the centres of the corner pixels (True) or at their outer edges (False).
    coordinates : {"normalised", "pixel"}, default "normalised"
        What the grid holds. Pixel coordinates count from the centre of the first pixel.
    fill_value : float or array of shape (C,), default 0.0
        With ``padding_mode="fill"``: the value beyond the image, one number or one a channel.
    antialias : bool or float, default False
        True averages over the footprint that each output pixel has in the input, wherever the grid's steps are longer
        than a pixel; elsewhere nothing changes. It measures the longest step and takes samples accordingly, about
        ``(2 * step) ** 2`` an output pixel. A number says in advance how long a step, in pixels, to be prepared for
        (at most 32): needed where PyTorch cannot look at values, under ``torch.compile`` and ``torch.vmap``.
    engine : {"reference", "cpu", "cuda", "emulator"}, optional
        What computes it; by default, the fastest for such arrays (see `stnlib.engines`). All agree to rounding.

    Returns
    -------
    array of input's dtype, shape (N, C, H_out, W_out) or (N, C, D_out, H_out, W_out)
        The sampled images V. A NaN coordinate gives NaN. An infinite one is outside the image under zeros, fill and
        border padding, and gives NaN where the padding repeats the image.

    Raises
    ------
    TypeError
        If an array is not of such a dtype, the grid is less precise than the images, or the two come from different
        libraries.
    ValueError
        If a shape, an option or a device does not fit.

    See Also
    --------
    affine_sample : The same, from theta.

    Notes
    -----
    Equation (3) of Jaderberg et al. (2015), with the kernels of equations (4) and (5) and others. Derived in chapter 2.
    Agrees with ``torch.nn.functional.grid_sample``, whose defaults it shares; a nearest-pixel tie in the reflected
    part of an image may take the other of the two pixels.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.array([[[[0.0, 10.0], [20.0, 30.0]]]])
    >>> grid_sample(image, np.array([[[[0.0, 0.0], [-0.5, -0.5]]]]))
    array([[[[15.,  0.]]]])
    >>> grid_sample(image, np.array([[[[0.5, 0.5], [9.0, 0.0]]]]), coordinates="pixel", padding_mode="border")
    array([[[[15., 10.]]]])
    """
    options = resolve(mode, padding_mode, align_corners, coordinates, fill_value, antialias)
    xp = check_arrays(input, grid)
    fast = engines.pick(engine, options, input, grid)
    if fast is not None:
        return fast.sample(input, grid, None, fill_or_none(input, options, xp), options)
    gather = functools.partial(gather_scatter.gather, sampler=options.sampler, xp=xp)
    return read(input, grid, options, gather, xp)


class Gradients(NamedTuple):
    """Gradients of `grid_sample`'s arguments; None for one that was not asked for."""

    input: Array | None
    grid: Array | None
    fill: Array | None


def grid_sample_vjp(
    grad_output: Array,
    input: Array,
    grid: Array,
    *,
    needs: tuple[bool, bool, bool] = (True, True, True),
    engine: str | None = None,
    **options: Any,
) -> Gradients:
    """Return the vector-Jacobian product of `grid_sample`: the gradients of the images, the grid and the fill value.

    Parameters
    ----------
    grad_output : array of input's dtype and the output's shape
        Gradient of a loss with respect to the output.
    input, grid
        As they were for `grid_sample`.
    needs : (bool, bool, bool), default (True, True, True)
        Which of the three gradients to compute; the others are None. A network's first layer needs no image gradient.
    **options
        As they were for `grid_sample`.

    Returns
    -------
    Gradients
        A named tuple.

        - ``input``, as input: each output pixel's gradient is scattered to the pixels that it read, with the weights
          that it read them with. Summed in float64. A NaN coordinate adds nothing.
        - ``grid``, as grid: with respect to its coordinates. Where the output has a kink (bilinear, at whole pixels),
          it is the derivative from the right: that of the segment from floor(x) to floor(x) + 1. This holds at the
          image's border and at its mirrors too, where PyTorch chooses otherwise. Zero for ``mode="nearest"``.
        - ``fill``, as fill_value: zero unless the padding is ``"fill"``.

    Raises
    ------
    TypeError, ValueError
        As `grid_sample`, and if grad_output does not fit the output.

    Notes
    -----
    Equations (6) and (7) of Jaderberg et al. (2015). Derived in chapter 3.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.array([[[[0.0, 10.0], [20.0, 30.0]]]])
    >>> gradients = grid_sample_vjp(np.ones((1, 1, 1, 1)), image, np.zeros((1, 1, 1, 2)))
    >>> gradients.input
    array([[[[0.25, 0.25],
             [0.25, 0.25]]]])
    >>> gradients.grid  # the image rises by 10 a pixel along x and by 20 along y, and a pixel is 1 wide
    array([[[[10., 20.]]]])
    """
    chosen = resolve(**options)
    xp = check_arrays(input, grid)
    check_needs(needs)
    check_like_output(grad_output, input, grid.shape[1:-1])
    fast = engines.pick(engine, chosen, input, grid, grad_output)
    if fast is not None:
        fill = fill_or_none(input, chosen, xp)
        gradients = fast.sample_vjp(grad_output, input, grid, None, fill, chosen, needs)
    else:
        gradients = _vjp(grad_output, input, grid, chosen, needs, xp)
    return Gradients(*gradients[:2], _fill_gradient(gradients[2], input, chosen, xp))


def _vjp(
    grad_output: Array,
    input: Array,
    grid: Array,
    options: Options,
    needs: Sequence[bool],
    xp: Any,
) -> tuple[Array | None, Array | None, Array | None]:
    """Return the gradients of the images, the grid and, of shape (N, C), what lies beyond the images."""
    prepared = _prepare(input, grid, options, xp)
    grad = xp.astype(grad_output, computing_dtype(prepared.image, xp), copy=False)
    grad_image = grad_grid = grad_fill = None
    if needs[0] or needs[2]:
        grad_image, grad_fill = _image_gradient(grad, prepared, options.sampler, xp)
        grad_image = xp.astype(grad_image, input.dtype, copy=False)
    if needs[1]:
        grad_position = _position_gradient(grad, prepared, options, xp)
        grad_grid = xp.astype(grad_position * _units(input, options, xp), grid.dtype)
    return grad_image if needs[0] else None, grad_grid, grad_fill if needs[2] else None


def _image_gradient(
    grad: Array, prepared: _Prepared, sampler: Sampler, xp: Any
) -> tuple[Array, Array]:
    """Return the gradients of the images and of what lies beyond them: every reading scattered, equation (6)."""
    position, size = prepared.position, prepared.image.shape[2:]
    pixels = fill = 0.0
    for reading in prepared.readings:
        values = _flat_values(_weighted(grad, reading.weight, grad.shape[2:], xp), xp)
        place, orders = _flat(position, reading.offset, xp), _values(position)
        more = gather_scatter.scatter(values, place, orders, sampler, size, xp)
        pixels, fill = pixels + more[0], fill + more[1]
    return prefilter_vjp(pixels, fill, sampler, xp)


def _position_gradient(grad: Array, prepared: _Prepared, options: Options, xp: Any) -> Array:
    """Return the gradient of the positions, in pixels: equation (7) for every reading, and through its footprint."""
    position = prepared.position
    gather = functools.partial(gather_scatter.gather, sampler=options.sampler, xp=xp)
    grad_weights, grad_offsets = [], []
    for reading in prepared.readings:
        values = _flat_values(_weighted(grad, reading.weight, grad.shape[2:], xp), xp)
        place, orders = _flat(position, reading.offset, xp), _values(position)
        arguments = prepared.image, prepared.fill, place, orders
        slope = position_gradient(values, *arguments, gather, xp)
        grad_offsets.append(xp.reshape(slope, position.shape))
        if options.antialias:
            read = xp.reshape(gather(*arguments)[0, ...], grad.shape)
            grad_weights.append(xp.sum(to_float64(grad * read, xp), axis=1))
    total = sum(grad_offsets)
    if options.antialias:
        total = total + readings_vjp(
            prepared.readings, grad_weights, grad_offsets, position, xp
        )
    return total


def grid_sample_jvp(
    input: Array,
    grid: Array,
    *,
    input_tangent: Array | None = None,
    grid_tangent: Array | None = None,
    fill_tangent: Array | float | None = None,
    **options: Any,
) -> Array:
    """Return the Jacobian-vector product of `grid_sample`: how the output changes as its arguments move.

    Parameters
    ----------
    input, grid, **options
        As for `grid_sample`.
    input_tangent, grid_tangent, fill_tangent : arrays as input, grid and fill_value, optional
        The direction in which each moves; one that is left out stands still.

    Returns
    -------
    array as `grid_sample` returns
        The derivative of the output along that direction; at a kink, the one that `grid_sample_vjp` takes.

    Raises
    ------
    TypeError, ValueError
        As `grid_sample`, and if a tangent does not fit its argument.

    Notes
    -----
    Forward mode; derived in chapter 3.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.array([[[[0.0, 10.0], [20.0, 30.0]]]])
    >>> grid = np.zeros((1, 1, 1, 2))
    >>> grid_sample_jvp(image, grid, grid_tangent=np.array([[[[0.5, 0.0]]]]))
    array([[[[5.]]]])
    """
    chosen = resolve(**options)
    xp = check_arrays(input, grid)
    zeros = xp.zeros_like
    input_tangent = zeros(input) if input_tangent is None else input_tangent
    grid_tangent = zeros(grid) if grid_tangent is None else grid_tangent
    for name, tangent, like in (("input", input_tangent, input), ("grid", grid_tangent, grid)):
        check_like(f"{name}_tangent", tangent, name, like)
    moving = chosen._replace(fill_value=0.0)
    if fill_tangent is not None:
        moving = resolve(**{**options, "fill_value": fill_tangent})
    fill_tangent = fill_values(input, moving, xp)
    image_tangents = prefilter(input_tangent, fill_tangent, chosen.sampler, xp)[:2]
    tangent = to_float64(grid_tangent, xp) * _units(input, chosen, xp)
    prepared = _prepare(input, grid, chosen, xp)
    output = _tangent(prepared, *image_tangents, tangent, chosen, xp)
    return xp.astype(output, input.dtype, copy=False)


def _tangent(
    prepared: _Prepared, image: Array, fill: Array, tangent: Array, options: Options, xp: Any
) -> Array:
    """Return how the output moves along tangents of the image, the fill value and the positions."""
    position, output = prepared.position, 0.0
    gather = functools.partial(gather_scatter.gather, sampler=options.sampler, xp=xp)
    moves: list[Any] = [(None, None)]
    if options.antialias:
        moves = readings_jvp(prepared.readings, tangent, position, xp)
    for reading, (weight, offset) in zip(prepared.readings, moves, strict=True):
        place, orders = _flat(position, reading.offset, xp), _values(position)
        arguments = prepared.image, prepared.fill, place, orders
        moved = gather_jvp(image, fill, _flat(tangent, offset, xp), *arguments, gather, xp)
        shape = position.shape[1:-1]
        output = output + _weighted(moved[0, ...], reading.weight, shape, xp)
        if weight is not None:
            output = output + _weighted(gather(*arguments)[0, ...], weight, shape, xp)
    return output


def affine_sample(
    input: Array,
    theta: Array,
    size: Sequence[int],
    *,
    engine: str | None = None,
    **options: Any,
) -> Array:
    """Transform images by affine matrices: `affine_grid` and `grid_sample` in one.

    Between the two nothing is rounded: the coordinates stay in float64, whatever theta's dtype. The engines never hold
    the grid in memory.

    Parameters
    ----------
    input : array, shape (N, C, H, W) or (N, C, D, H, W)
        As for `grid_sample`.
    theta : array of float32 or float64, shape (N, 2, 3) or (N, 3, 4)
        Maps output coordinates to input coordinates, as for `affine_grid`.
    size : (H_out, W_out) or (D_out, H_out, W_out)
        Size of the output in pixels; or with N and C before it.
    engine, **options
        As for `grid_sample`. With ``coordinates="pixel"`` theta maps pixel coordinates of the output to pixel
        coordinates of the input.

    Returns
    -------
    array of input's dtype, shape (N, C, H_out, W_out) or (N, C, D_out, H_out, W_out)

    Raises
    ------
    TypeError, ValueError
        As `affine_grid` and `grid_sample`.

    Notes
    -----
    Equations (1) and (3) of Jaderberg et al. (2015). Derived in chapters 1 and 2. An output of one pixel along an axis
    has no neighbour to tell its footprint along it, so ``antialias`` has no effect along this axis.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.array([[[[0.0, 10.0], [20.0, 30.0]]]])
    >>> mirror = np.array([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    >>> affine_sample(image, mirror, (2, 2))
    array([[[[10.,  0.],
             [30., 20.]]]])
    """
    chosen = resolve(**options)
    xp, size = check_affine_arrays(input, theta, size)
    fast = engines.pick(engine, chosen, input, theta)
    if fast is not None:
        return fast.sample(input, theta, size, fill_or_none(input, chosen, xp), chosen)
    grid = affine_positions(input, theta, size, chosen, xp)
    return grid_sample(input, grid, **_in_pixels(options), engine="reference")


def affine_sample_vjp(
    grad_output: Array,
    input: Array,
    theta: Array,
    *,
    needs: tuple[bool, bool, bool] = (True, True, True),
    engine: str | None = None,
    **options: Any,
) -> AffineGradients:
    """Return the vector-Jacobian product of `affine_sample`: the gradients of the images, theta and the fill value.

    Parameters
    ----------
    grad_output : array of input's dtype and the output's shape
    input, theta, **options
        As they were for `affine_sample`.
    needs : (bool, bool, bool), default (True, True, True)
        Which of the three gradients to compute; the others are None.

    Returns
    -------
    AffineGradients
        A named tuple ``(input, theta, fill)``, each as the argument; see `grid_sample_vjp`.

    Raises
    ------
    TypeError, ValueError
        As `affine_sample`, and if grad_output does not fit the output.

    Notes
    -----
    Derived in chapter 3.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.array([[[[0.0, 10.0], [20.0, 30.0]]]])
    >>> identity = np.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    >>> affine_sample_vjp(np.ones((1, 1, 1, 1)), image, identity).theta
    array([[[ 0.,  0., 10.],
            [ 0.,  0., 20.]]])
    """
    chosen = resolve(**options)
    _arrays.namespace(grad_output=grad_output)
    require_shape(grad_output, "grad_output", "(N, C, H, W)", "(N, C, D, H, W)")
    xp, size = check_affine_arrays(input, theta, tuple(grad_output.shape[2:]))
    check_needs(needs)
    check_like_output(grad_output, input, size)
    fast = engines.pick(engine, chosen, input, theta, grad_output)
    if fast is not None:
        fill = fill_or_none(input, chosen, xp)
        grads = fast.sample_vjp(grad_output, input, theta, size, fill, chosen, needs)
        return AffineGradients(*grads[:2], _fill_gradient(grads[2], input, chosen, xp))
    grid = affine_positions(input, theta, size, chosen, xp)
    grad_input, grad_theta, grad_fill = grid_sample_vjp(
        grad_output, input, grid, needs=needs, **_in_pixels(options), engine="reference"
    )
    if grad_theta is not None:
        grad_matrix = affine_grid_vjp(grad_theta, coordinates="pixel")
        grad_theta = pixel_matrix_vjp(grad_matrix, **_frames(input, size, chosen), xp=xp)
        grad_theta = xp.astype(grad_theta, theta.dtype, copy=False)
    return AffineGradients(grad_input, grad_theta, grad_fill)


class AffineGradients(NamedTuple):
    """Gradients of `affine_sample`'s arguments; None for one that was not asked for."""

    input: Array | None
    theta: Array | None
    fill: Array | None


def affine_sample_jvp(
    input: Array,
    theta: Array,
    size: Sequence[int],
    *,
    input_tangent: Array | None = None,
    theta_tangent: Array | None = None,
    fill_tangent: Array | float | None = None,
    **options: Any,
) -> Array:
    """Return the Jacobian-vector product of `affine_sample`: how the output changes as its arguments move.

    Parameters
    ----------
    input, theta, size, **options
        As for `affine_sample`.
    input_tangent, theta_tangent, fill_tangent : arrays as input, theta and fill_value, optional
        The direction in which each moves; one that is left out stands still.

    Returns
    -------
    array as `affine_sample` returns

    Raises
    ------
    TypeError, ValueError
        As `affine_sample`, and if a tangent does not fit its argument.

    Notes
    -----
    Forward mode; derived in chapter 3.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.array([[[[0.0, 10.0], [20.0, 30.0]]]])
    >>> identity = np.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    >>> shift = np.array([[[0.0, 0.0, 0.5], [0.0, 0.0, 0.0]]])
    >>> affine_sample_jvp(image, identity, (1, 1), theta_tangent=shift)
    array([[[[5.]]]])
    """
    chosen = resolve(**options)
    xp, size = check_affine_arrays(input, theta, size)
    grid_tangent = None
    if theta_tangent is not None:
        check_like("theta_tangent", theta_tangent, "theta", theta)
        grid_tangent = affine_positions(input, theta_tangent, size, chosen, xp, tangent=True)
    return grid_sample_jvp(
        input,
        affine_positions(input, theta, size, chosen, xp),
        input_tangent=input_tangent,
        grid_tangent=grid_tangent,
        fill_tangent=fill_tangent,
        **_in_pixels(options),
    )


# What the functions above share


def read(
    input: Array,
    grid: Array,
    options: Options,
    gather: Callable[..., Array],
    xp: Any,
    fill: Array | None = None,
) -> Array:
    """Sample images with a given `gather`, of which every other step is plain array code."""
    prepared = _prepare(input, grid, options, xp, fill)
    position, output = prepared.position, 0.0
    for reading in prepared.readings:
        place = _flat(position, reading.offset, xp)
        values = gather(prepared.image, prepared.fill, place, _values(position))
        output = output + _weighted(values[0, ...], reading.weight, grid.shape[1:-1], xp)
    return xp.astype(output, input.dtype, copy=False)


class _Plain(NamedTuple):
    """The one reading of the plain sampler."""

    weight: None = None  # 1
    offset: None = None  # 0


class _Prepared(NamedTuple):
    image: Array  # or a spline's coefficients
    fill: Array
    position: Array  # in the pixels of image, (N, *output, D)
    readings: list[Any]


def _prepare(
    input: Array, grid: Array, options: Options, xp: Any, fill: Array | None = None
) -> _Prepared:
    fill = fill_values(input, options, xp) if fill is None else fill
    position = _positions(grid, input.shape[2:], options, xp)
    samples: list[Any] = [_Plain()]
    if options.antialias:
        samples = readings(position, options.antialias, xp)
    image, fill, margin = prefilter(input, fill, options.sampler, xp)
    return _Prepared(image, fill, position + margin if margin else position, samples)


def _positions(grid: Array, size: Sequence[int], options: Options, xp: Any) -> Array:
    """Convert the grid to pixels in float64; infinity stays infinite, even where a unit is 0 pixels."""
    grid = to_float64(grid, xp)
    if options.coordinates == "pixel":
        return grid
    columns = []
    for axis, length in enumerate(reversed(size)):
        coordinate = grid[..., axis]
        far = xp.abs(coordinate) >= 1e300  # infinite, or soon to be
        near = xp.where(far, xp.zeros_like(coordinate), coordinate)
        position = unnormalise(near, length, align_corners=options.sampler.align_corners)
        columns.append(xp.where(far, coordinate, position))
    return xp.stack(columns, axis=-1)


def _units(input: Array, options: Options, xp: Any) -> Array:
    """Return how many pixels one unit of the grid's coordinates is, along x, y (and z)."""
    lengths = input.shape[2:][::-1]
    units = [
        1.0
        if options.coordinates == "pixel"
        else pixels_per_unit(length, align_corners=options.sampler.align_corners)
        for length in lengths
    ]
    return xp.asarray(units, dtype=xp.float64, device=device(input))


def fill_values(input: Array, options: Options, xp: Any) -> Array:
    """Return the value of a pixel that does not exist, shape (N, C)."""
    n, c = input.shape[:2]
    dtype = computing_dtype(input, xp)
    value: Any = options.fill_value
    if isinstance(value, numbers.Real | Sequence):
        value = xp.asarray(value, dtype=dtype, device=device(input))
    else:
        _arrays.namespace(fill_value=value, input=input)
    if tuple(value.shape) not in ((), (c,)):
        raise ValueError(
            f"fill_value: expected a number or one for each of {c} channels, got shape {tuple(value.shape)}"
        )
    return xp.broadcast_to(xp.astype(value, dtype, copy=False), (n, c))


def fill_or_none(input: Array, options: Options, xp: Any) -> Array | None:
    """Return `fill_values` under padding by a fill value; None where it is zero anyhow, or not read."""
    return fill_values(input, options, xp) if options.sampler.padding_mode == "fill" else None


def _fill_gradient(grad: Array | None, input: Array, options: Options, xp: Any) -> Array | None:
    """Sum the gradient, (N, C), over what shared a value; zero where the value is fixed."""
    if grad is None:
        return None
    per_channel = len(getattr(options.fill_value, "shape", None) or ()) == 1 or isinstance(
        options.fill_value, Sequence
    )
    dtype = computing_dtype(input, xp)
    if options.sampler.padding_mode != "fill":
        shape = grad.shape[1:] if per_channel else ()
        return xp.zeros(shape, dtype=dtype, device=device(input))
    grad = xp.sum(grad, axis=0 if per_channel else (0, 1))
    return xp.astype(xp.asarray(grad), dtype, copy=False)


def _flat(position: Array, offset: Array | None, xp: Any) -> Array:
    """Return positions (N, *output, D), moved by an offset, in one row, (N, L, D)."""
    if offset is not None:
        position = position + offset
    n, *output, dimensions = position.shape
    return xp.reshape(position, (n, math.prod(output), dimensions))


def _values(position: Array) -> list[tuple[int, ...]]:
    """Return the one order that asks for the values themselves."""
    return [(0,) * position.shape[-1]]


def _flat_values(values: Array, xp: Any) -> Array:
    """Return values (N, C, *output) as gather and scatter have them, (1, N, C, L)."""
    n, c, *output = values.shape
    return xp.reshape(values, (1, n, c, math.prod(output)))


def _weighted(values: Array, weight: Array | None, output: Sequence[int], xp: Any) -> Array:
    """Return values (N, C, L) in the output's shape, times a weight (N, *output)."""
    values = xp.reshape(values, (*values.shape[:2], *output))
    if weight is None:
        return values
    return values * xp.astype(weight, values.dtype, copy=False)[:, None, ...]


def _targets(
    size: Sequence[int], align_corners: bool, coordinates: str, xp: Any, device: Any
) -> list[Array]:
    """Return the regular grid as its x, y (and z), each shaped to meet (*size, 1)."""
    targets = []
    for axis, length in reversed(list(enumerate(size))):
        if coordinates == "pixel":
            centres = xp.arange(length, dtype=xp.float64, device=device)
        else:
            centres = pixel_centres(length, align_corners=align_corners, xp=xp, device=device)
        targets.append(xp.reshape(centres, (*[1] * axis, length, *[1] * (len(size) - axis))))
    return targets


def affine_positions(
    input: Array,
    theta: Array,
    size: Sequence[int],
    options: Options,
    xp: Any,
    *,
    tangent: bool = False,
) -> Array:
    """Return the grid of a theta, or how it moves along a tangent of theta: input pixels, in float64."""
    frames = _frames(input, size, options)
    matrix = pixel_matrix(theta, **frames, tangent=tangent, xp=xp)
    return affine_grid(matrix, size, coordinates="pixel")


def _frames(input: Array, size: Sequence[int], options: Options) -> dict[str, Any]:
    """Return what `pixel_matrix` needs to know beside theta."""
    return {
        "input_size": input.shape[2:],
        "output_size": size,
        "align_corners": options.sampler.align_corners,
        "coordinates": options.coordinates,
    }


def _in_pixels(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "coordinates": "pixel"}
