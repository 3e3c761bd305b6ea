"""The grid generator, the sampler and their vector-Jacobian products: the reference, as chapters 1 to 3 derive it.

Convention: ``theta`` maps output (target) coordinates to input (source) coordinates, normalised, x before y, as in
equation (1) of the paper. Coordinates are carried in float64 and pixels are blended in the image's dtype. The same
lines run on NumPy, CuPy and PyTorch arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import _arrays
from ._arrays import (
    Array,
    device,
    require_float,
    require_shape,
    require_size,
    scatter_add,
    to_float64,
)
from .coordinates import pixel_centres, pixels_per_unit, unnormalise
from .interpolation import KERNELS, PADDING_MODES, Tap, taps


def affine_grid(theta: Array, size: Sequence[int], *, align_corners: bool = False) -> Array:
    """Generate the sampling grid of an affine transform: where in the input each output pixel is read.

    Parameters
    ----------
    theta : array of float32 or float64, shape (N, 2, 3)
        One matrix an image. Maps normalised output coordinates (x, y, 1) to normalised input coordinates (x, y).
    size : (N, C, H, W) or (H, W)
        Size of the output, in pixels.
    align_corners : bool, default False
        Where -1 and 1 lie: at the centres of the corner pixels (True) or at their outer edges (False).

    Returns
    -------
    array of theta's dtype, shape (N, H, W, 2)
        Normalised input coordinates, the last axis (x, y). Computed in float64 and rounded once.

    Raises
    ------
    TypeError
        If theta is not a float32 or float64 array.
    ValueError
        If theta or size has the wrong shape, or a size is not positive.

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
    height, width = _check_affine(theta, size, xp)
    x, y = _target_coordinates(height, width, align_corners, xp, device(theta))
    a = to_float64(theta, xp)[:, None, None, :, :]  # (N, 1, 1, 2, 3), to meet (H, W, 1)
    grid = a[..., 0] * x + a[..., 1] * y + a[..., 2]
    return xp.astype(grid, theta.dtype, copy=False)


def affine_grid_vjp(grad_grid: Array, *, align_corners: bool = False) -> Array:
    """Return the vector-Jacobian product of `affine_grid`: the gradient of theta from that of the grid.

    Parameters
    ----------
    grad_grid : array of float32 or float64, shape (N, H, W, 2)
        Gradient of a loss with respect to the grid.
    align_corners : bool, default False
        As it was for `affine_grid`.

    Returns
    -------
    array of grad_grid's dtype, shape (N, 2, 3)
        Gradient of the loss with respect to theta, summed in float64.

    Raises
    ------
    TypeError
        If grad_grid is not a float32 or float64 array.
    ValueError
        If grad_grid has the wrong shape.

    Notes
    -----
    The grid is linear in theta, so each entry of the gradient is a sum over the output pixels of the grid's gradient
    times x, y or 1. Derived in chapter 3.

    Examples
    --------
    >>> import numpy as np
    >>> affine_grid_vjp(np.ones((1, 1, 2, 2)))
    array([[[0., 0., 2.],
            [0., 0., 2.]]])
    """
    xp = _arrays.namespace(grad_grid=grad_grid)
    require_float(xp, grad_grid=grad_grid)
    require_shape(grad_grid, "grad_grid", "(N, H, W, 2)")
    _, height, width, _ = grad_grid.shape
    x, y = _target_coordinates(height, width, align_corners, xp, device(grad_grid))
    g = to_float64(grad_grid, xp)
    columns = [xp.sum(g * t, axis=(1, 2)) for t in (x, y, xp.ones_like(x))]
    return xp.astype(xp.stack(columns, axis=-1), grad_grid.dtype, copy=False)


def grid_sample(
    input: Array,
    grid: Array,
    *,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> Array:
    """Sample images at the positions of a grid.

    Parameters
    ----------
    input : array of float32 or float64, shape (N, C, H, W)
        The images U.
    grid : array of float32 or float64, shape (N, H_out, W_out, 2)
        Where each output pixel is read: normalised input coordinates, the last axis (x, y). A float64 grid may go
        with float32 images, and keeps its precision.
    mode : {"bilinear", "nearest"}, default "bilinear"
        The sampling kernel.
    padding_mode : {"zeros", "border", "reflection"}, default "zeros"
        What lies beyond the image: zeros, the nearest pixel of the border, or the image's mirror image. The mirrors
        stand at the centres of the corner pixels with ``align_corners=True``, else at their outer edges.
    align_corners : bool, default False
        Where -1 and 1 lie: at the centres of the corner pixels (True) or at their outer edges (False).

    Returns
    -------
    array of input's dtype, shape (N, C, H_out, W_out)
        The sampled images V. A NaN coordinate gives NaN. An infinite one is outside the image under zeros and border
        padding, and gives NaN under reflection.

    Raises
    ------
    TypeError
        If an array is not float32 or float64, the image is float64 and the grid float32, or the two come from
        different libraries.
    ValueError
        If a shape, a mode or a device does not fit.

    Notes
    -----
    Equation (3) of Jaderberg et al. (2015), with the kernels of equations (4) and (5). Derived in chapter 2. Agrees
    with ``torch.nn.functional.grid_sample``, whose defaults it shares; a nearest-pixel tie in the reflected part of
    an image may take the other of the two pixels.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.array([[[[0.0, 10.0], [20.0, 30.0]]]])
    >>> grid_sample(image, np.array([[[[0.0, 0.0], [-0.5, -0.5]]]]))
    array([[[[15.,  0.]]]])
    """
    xp = _check_sampler(input, grid, mode, padding_mode, align_corners)
    rows, columns = _rows_and_columns(input, grid, mode, padding_mode, align_corners, xp)
    output = 0.0
    for row in rows:
        line = 0.0
        for column in columns:
            line = line + column.weight * _pixels(input, row, column, xp)
        output = output + row.weight * line
    return output


def grid_sample_vjp(
    grad_output: Array,
    input: Array,
    grid: Array,
    *,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
    needs: tuple[bool, bool] = (True, True),
) -> tuple[Array | None, Array | None]:
    """Return the vector-Jacobian product of `grid_sample`: the gradients of the images and of the grid.

    Parameters
    ----------
    grad_output : array of input's dtype, shape (N, C, H_out, W_out)
        Gradient of a loss with respect to the output.
    input, grid, mode, padding_mode, align_corners
        As they were for `grid_sample`.
    needs : (bool, bool), default (True, True)
        Which of the two gradients to compute; the other is None. A network's first layer needs no image gradient.

    Returns
    -------
    grad_input : array of input's dtype, shape (N, C, H, W)
        Gradient with respect to the images: each output pixel's gradient is scattered to the pixels that it read,
        with the weights that it read them with. Summed in float64. A NaN coordinate adds nothing.
    grad_grid : array of grid's dtype, shape (N, H_out, W_out, 2)
        Gradient with respect to the grid's normalised coordinates. Where the output has a kink (bilinear, at whole
        pixels), it is the derivative from the right: that of the segment from floor(x) to floor(x) + 1. This holds at
        the image's border and at its mirrors too, where PyTorch chooses otherwise. Zero for ``mode="nearest"``.

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
    >>> grad_input, grad_grid = grid_sample_vjp(np.ones((1, 1, 1, 1)), image, np.zeros((1, 1, 1, 2)))
    >>> grad_input
    array([[[[0.25, 0.25],
             [0.25, 0.25]]]])
    >>> grad_grid  # the image rises by 10 a pixel along x and by 20 along y, and a pixel is 1 wide
    array([[[[10., 20.]]]])
    """
    xp = _check_sampler(input, grid, mode, padding_mode, align_corners)
    _check_grad_output(grad_output, input, grid)
    rows, columns = _rows_and_columns(input, grid, mode, padding_mode, align_corners, xp)
    grad_input = image_gradient(grad_output, input, rows, columns, xp) if needs[0] else None
    grad_grid = (
        coordinate_gradient(grad_output, input, rows, columns, align_corners, xp)
        if needs[1]
        else None
    )
    return grad_input, None if grad_grid is None else xp.astype(
        grad_grid, grid.dtype, copy=False
    )


def image_gradient(
    grad_output: Array, input: Array, rows: list[Tap], columns: list[Tap], xp: Any
) -> Array:
    """Scatter each output pixel's gradient to the pixels that it read, weighted as they were read: equation (6)."""
    n, c, height, width = input.shape
    _, _, height_out, width_out = grad_output.shape
    total = 0.0
    for row in rows:
        for column in columns:
            weight = row.weight * column.weight
            counts = ~xp.isnan(weight)  # a sample at NaN read no pixel
            inside = _both_inside(row, column)
            if inside is not None:
                counts = counts & inside
            values = xp.where(counts, weight * grad_output, xp.zeros_like(grad_output))
            place = xp.reshape(row.index * width + column.index, (n, 1, height_out * width_out))
            total = total + scatter_add(
                place, xp.reshape(values, (n, c, height_out * width_out)), height * width, xp
            )
    return xp.astype(xp.reshape(total, (n, c, height, width)), input.dtype, copy=False)


def coordinate_gradient(
    grad_output: Array,
    input: Array,
    rows: list[Tap],
    columns: list[Tap],
    align_corners: bool,
    xp: Any,
) -> Array:
    """Return the gradient with respect to the normalised coordinates, shape (N, H_out, W_out, 2): equation (7)."""
    along_x = along_y = 0.0
    for row in rows:
        line = slope = 0.0
        for column in columns:
            pixels = _pixels(input, row, column, xp)
            line = line + column.weight * pixels
            slope = slope + column.slope * pixels
        along_x = along_x + row.weight * slope
        along_y = along_y + row.slope * line
    # The last factor of the chain rule: how many pixels one unit of a normalised coordinate is.
    _, _, height, width = input.shape
    grad_x, grad_y = (
        xp.sum(to_float64(grad_output * along, xp), axis=1)
        * pixels_per_unit(size, align_corners=align_corners)
        for along, size in ((along_x, width), (along_y, height))
    )
    return xp.stack((grad_x, grad_y), axis=-1)


def _target_coordinates(
    height: int, width: int, align_corners: bool, xp: Any, device: Any
) -> tuple[Array, Array]:
    """Return the regular grid as its x, shape (1, W, 1), and its y, shape (H, 1, 1)."""
    x = pixel_centres(width, align_corners=align_corners, xp=xp, device=device)
    y = pixel_centres(height, align_corners=align_corners, xp=xp, device=device)
    return x[None, :, None], y[:, None, None]


def _rows_and_columns(
    input: Array, grid: Array, mode: str, padding_mode: str, align_corners: bool, xp: Any
) -> tuple[list[Tap], list[Tap]]:
    """Return the taps along y and along x; weights in the image's dtype and shaped to meet its channels."""
    both = []
    for axis, size in ((1, input.shape[2]), (0, input.shape[3])):
        position = _positions(grid[..., axis], size, align_corners, xp)
        both.append(
            [
                Tap(
                    tap.index,
                    tap.inside,
                    *(xp.astype(w, input.dtype, copy=False)[:, None, ...] for w in tap[2:]),
                )
                for tap in taps(
                    position,
                    size,
                    mode=mode,
                    padding_mode=padding_mode,
                    align_corners=align_corners,
                    xp=xp,
                )
            ]
        )
    rows, columns = both
    return rows, columns


def _positions(coordinate: Array, size: int, align_corners: bool, xp: Any) -> Array:
    """Convert normalised coordinates to pixels in float64; infinity stays infinite, even where a unit is 0 pixels."""
    coordinate = to_float64(coordinate, xp)
    infinite = xp.isinf(coordinate)
    position = unnormalise(
        xp.where(infinite, 0.0, coordinate), size, align_corners=align_corners
    )
    return xp.where(infinite, coordinate, position)


def _both_inside(row: Tap, column: Tap) -> Array | None:
    """Return where the pixel (row, column) exists, shape (N, 1, H_out, W_out); None where every one does."""
    return (
        None
        if row.inside is None or column.inside is None
        else (row.inside & column.inside)[:, None, ...]
    )


def _pixels(input: Array, row: Tap, column: Tap, xp: Any) -> Array:
    """Gather U[n, :, row, column] for every sample, zero where there is no such pixel."""
    n, c, height, width = input.shape
    _, height_out, width_out = row.index.shape
    place = xp.reshape(row.index * width + column.index, (n, 1, height_out * width_out))
    values = xp.take_along_axis(xp.reshape(input, (n, c, height * width)), place, axis=2)
    values = xp.reshape(values, (n, c, height_out, width_out))
    inside = _both_inside(row, column)
    return values if inside is None else xp.where(inside, values, xp.zeros_like(values))


def _check_affine(theta: Array, size: Sequence[int], xp: Any) -> tuple[int, int]:
    require_float(xp, theta=theta)
    require_shape(theta, "theta", "(N, 2, 3)")
    if not isinstance(size, Sequence) or len(size) not in (2, 4):
        given = tuple(size) if isinstance(size, Sequence) else size
        raise ValueError(f"size: expected (N, C, H, W) or (H, W), got {given!r}")
    if len(size) == 4 and size[0] != theta.shape[0]:
        raise ValueError(
            f"size: expected a batch of {theta.shape[0]}, as theta has, got {tuple(size)}"
        )
    return require_size(size[-2:], "size")


def check_options(mode: str, padding_mode: str, align_corners: bool) -> None:
    """Raise unless the options are ones that `grid_sample` knows."""
    for name, value, known in (
        ("mode", mode, tuple(KERNELS)),
        ("padding_mode", padding_mode, PADDING_MODES),
    ):
        if value not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    if align_corners not in (True, False):
        raise ValueError(f"align_corners: expected True or False, got {align_corners!r}")


def _check_sampler(
    input: Array, grid: Array, mode: str, padding_mode: str, align_corners: bool
) -> Any:
    xp = _arrays.namespace(input=input, grid=grid)
    require_float(xp, input=input, grid=grid)
    if input.dtype == xp.float64 and grid.dtype == xp.float32:
        raise TypeError("grid: expected float64, as input is, got float32; convert one of them")
    require_shape(input, "input", "(N, C, H, W)")
    require_shape(grid, "grid", "(N, H_out, W_out, 2)")
    if input.shape[0] != grid.shape[0]:
        raise ValueError(
            f"grid: expected a batch of {input.shape[0]}, as input has, got shape {tuple(grid.shape)}"
        )
    for name, array, (height, width) in (
        ("input", input, input.shape[2:]),
        ("grid", grid, grid.shape[1:3]),
    ):
        if height < 1 or width < 1:
            raise ValueError(
                f"{name}: expected a height and a width of at least 1, got shape {tuple(array.shape)}"
            )
    check_options(mode, padding_mode, align_corners)
    return xp


def _check_grad_output(grad_output: Array, input: Array, grid: Array) -> None:
    _arrays.namespace(grad_output=grad_output, input=input)
    expected = (*input.shape[:2], *grid.shape[1:3])
    if tuple(grad_output.shape) != expected:
        raise ValueError(
            f"grad_output: expected shape {expected}, as the output has, got {tuple(grad_output.shape)}"
        )
    if grad_output.dtype != input.dtype:
        raise TypeError(
            f"grad_output: expected {input.dtype}, as input is, got {grad_output.dtype}"
        )
