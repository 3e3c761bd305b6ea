"""The families that are matrices: translation, attention, rigid, similarity and affine, in the plane and in space."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from .. import _arrays
from .._arrays import Array, require_float, require_shape
from ..sampling import affine_grid
from . import algebra
from .families import Family, float_identity

Entry = float | str
Table = Sequence[Sequence[Entry]]


class Linear(Family):
    """A family of matrices. What a matrix does well, all of them do: be inverted, composed, and fused with the sampler.

    A family of one's own has ``num_parameters``, `identity`, `matrix` and, if it wants to be inverted, `from_matrix`.
    """

    def matrix(self, theta: Array) -> Array:
        """Return the matrices of parameters.

        Parameters
        ----------
        theta : array of float32 or float64, shape (N, P)

        Returns
        -------
        array, shape (N, 2, 3) or (N, 3, 4)
            From normalised output coordinates to normalised input coordinates.

        Raises
        ------
        TypeError, ValueError
            If theta is not such an array.
        """
        raise NotImplementedError(f"{type(self).__name__}.matrix")

    @np.errstate(all="ignore")  # on the way to a refusal
    def from_matrix(self, matrix: Array) -> Array:
        """Return the parameters of matrices that belong to the family.

        Parameters
        ----------
        matrix : array of float32 or float64, shape (N, 2, 3) or (N, 3, 4)

        Returns
        -------
        array, shape (N, P)

        Raises
        ------
        TypeError
            If matrix is not an array of float32 or float64.
        ValueError
            If the shape differs, or a matrix does not belong to the family.
        """
        xp = _arrays.namespace(matrix=matrix)
        require_float(xp, matrix=matrix)
        d = self.dimensions
        require_shape(matrix, "matrix", f"(N, {d}, {d + 1})")
        theta = self._read(matrix, xp)
        off = xp.abs(self.matrix(theta) - matrix)
        near = xp.finfo(matrix.dtype).eps ** 0.5 * (1 + xp.abs(matrix))
        if not bool(xp.all(off <= near)):
            raise ValueError(
                f"matrix: expected one of the family {self}, got one that is {float(xp.max(off)):.2g} off its nearest"
            )
        return theta

    def _read(self, matrix: Array, xp: Any) -> Array:
        """Return the parameters of matrices; of one that does not belong to the family, some."""
        raise NotImplementedError(f"{type(self).__name__}.from_matrix")

    def apply(self, theta: Array, points: Array) -> Array:
        """Move points by the matrices of parameters: see `Family.apply`."""
        self.check(theta, points)
        return algebra.apply(self.matrix(theta), points)

    def grid(self, theta: Array, size: Sequence[int], *, align_corners: bool = False) -> Array:
        """Generate the sampling grid of parameters: see `Family.grid` and `stnlib.affine_grid`."""
        xp, size = self.check_grid(theta, size)
        matrix = self.matrix(_arrays.to_float64(theta, xp))
        grid = affine_grid(matrix, size, align_corners=align_corners)
        return xp.astype(grid, theta.dtype, copy=False)

    def inverse(self, theta: Array) -> Array:
        """Return the parameters, shape (N, P), of the transforms that undo those of theta.

        Raises
        ------
        TypeError, ValueError
            If theta is not such an array, a transform is singular, or its inverse does not belong to the family.
        """
        return self.from_matrix(algebra.inverse(self.matrix(theta)))

    def compose(self, a: Array, b: Array) -> Array:
        """Return the parameters, shape (N, P), of b's transforms followed by a's.

        Raises
        ------
        TypeError, ValueError
            If a or b is not such an array, or what they compose to does not belong to the family.
        """
        return self.from_matrix(algebra.compose(self.matrix(a), self.matrix(b)))

    def log(self, theta: Array) -> Array:
        """Return the generators, shape (N, 2, 3) or (N, 3, 4): see `stnlib.transforms.logarithm`."""
        return algebra.logarithm(self.matrix(theta))

    def exp(self, generator: Array) -> Array:
        """Return the parameters, shape (N, P), that generators lead to: see `stnlib.transforms.exponential`."""
        return self.from_matrix(algebra.exponential(generator))


class Affine(Linear):
    """The family of affine transforms, equation (1) of the paper, and each that a table of its matrix describes.

    An entry of the table is a number, or the name of a parameter. A name that stands twice is one parameter, and a
    minus before it turns its sign. Parameters come in the order of their first appearance, row by row.

    Parameters
    ----------
    table : rows of numbers and names, optional
        2 rows of 3, or 3 rows of 4. By default every entry is a parameter: 6 in the plane, 12 in space.
    dimensions : {2, 3}, default 2
        Of the default table.

    Raises
    ------
    TypeError, ValueError
        If table is not such a table, or has no parameter.

    Notes
    -----
    Derived in chapters 1 and 6. ``&`` gives the family that obeys both tables.

    Examples
    --------
    >>> Affine().identity()
    array([1., 0., 0., 0., 1., 0.])
    >>> Affine().grid(np.zeros((5, 6)), (3, 4)).shape
    (5, 3, 4, 2)
    >>> half = Affine([[0.5, 0, "tx"], [0, 0.5, "ty"]])  # a window of half the size, wherever it looks
    >>> half.num_parameters
    2
    >>> Affine.attention() & half
    Affine([[0.5, 0, 'tx'], [0, 0.5, 'ty']])
    """

    def __init__(self, table: Table | None = None, *, dimensions: int = 2) -> None:
        if dimensions not in (2, 3):
            raise ValueError(f"dimensions: expected 2 or 3, got {dimensions!r}")
        full = table is None
        self.table = _full(dimensions) if table is None else _checked(table)
        self.dimensions = len(self.table)
        entries = list(itertools.chain(*self.table))
        self.names = tuple(dict.fromkeys(e.lstrip("-") for e in entries if isinstance(e, str)))
        self.num_parameters = len(self.names)
        self._full = full
        if not self.names:
            raise ValueError("table: expected at least one parameter's name, got numbers alone")

    @classmethod
    def translation(cls) -> Affine:
        """Return the family of translations: two parameters, (tx, ty)."""
        return Affine([[1, 0, "tx"], [0, 1, "ty"]])

    @classmethod
    def attention(cls, scales: int = 1) -> Affine:
        """Return the paper's attention, equation (2): a window that is moved and scaled.

        Parameters
        ----------
        scales : {1, 2}, default 1
            One scale, parameters (s, tx, ty); or one an axis, (sx, tx, sy, ty).

        Raises
        ------
        ValueError
            If scales is neither.

        Examples
        --------
        >>> Affine.attention().matrix(np.asarray([[0.5, 0.1, 0.2]]))
        array([[[0.5, 0. , 0.1],
                [0. , 0.5, 0.2]]])
        """
        if scales not in (1, 2):
            raise ValueError(f"scales: expected 1 or 2, got {scales!r}")
        sx, sy = ("s", "s") if scales == 1 else ("sx", "sy")
        return Affine([[sx, 0, "tx"], [0, sy, "ty"]])

    @classmethod
    def only(cls, **parts: Any) -> Factored:
        """Return the family that has some parts of an affine transform, and not the others: see `Factored`.

        Examples
        --------
        >>> Affine.only(rotation=True).identity()
        array([0.])
        """
        return Factored(**parts)

    def identity(self) -> Array:
        """Return the parameters of the identity: a NumPy array, shape (P,).

        Where a table's numbers rule the identity out, its names still get the values that they would have there.
        """
        return float_identity(
            self._read(np.eye(self.dimensions, self.dimensions + 1)[None], np)
        )

    def matrix(self, theta: Array) -> Array:
        """Return the matrices, shape (N, 2, 3) or (N, 3, 4), of parameters of shape (N, P): see `Linear.matrix`."""
        xp = self.check(theta)
        d = self.dimensions
        shape = (theta.shape[0], d, d + 1)
        if self._full:
            return xp.reshape(theta, shape)
        columns = []
        for entry in itertools.chain(*self.table):
            if isinstance(entry, str):
                column = theta[:, self.names.index(entry.lstrip("-"))]
                columns.append(-column if entry.startswith("-") else column)
            else:
                columns.append(xp.full_like(theta[:, 0], float(entry)))
        return xp.reshape(xp.stack(columns, axis=-1), shape)

    def _read(self, matrix: Array, xp: Any) -> Array:
        found: dict[str, Array] = {}
        for r, row in enumerate(self.table):
            for c, entry in enumerate(row):
                if isinstance(entry, str):
                    sign = -1 if entry.startswith("-") else 1
                    found.setdefault(entry.lstrip("-"), sign * matrix[:, r, c])
        return xp.stack([found[name] for name in self.names], axis=-1)

    def __and__(self, other: Affine) -> Affine:
        """Return the family that obeys both tables."""
        if not isinstance(other, Affine):
            return NotImplemented
        if self.dimensions != other.dimensions:
            raise ValueError(
                f"&: expected families of {self.dimensions} dimensions, got one of {other.dimensions}"
            )
        return Affine(_merged(self.table, other.table))

    def __repr__(self) -> str:
        if self._full:
            return "Affine()" if self.dimensions == 2 else "Affine(dimensions=3)"
        rows = ", ".join("[" + ", ".join(_written(e) for e in row) + "]" for row in self.table)
        return f"Affine([{rows}])"


def Translation() -> Affine:
    """Return the family of translations, two parameters (tx, ty): `Affine.translation`."""
    return Affine.translation()


def Attention(scales: int = 1) -> Affine:
    """Return the paper's attention, equation (2), three or four parameters: `Affine.attention`."""
    return Affine.attention(scales)


def _full(dimensions: int) -> tuple[tuple[Entry, ...], ...]:
    letters = iter("abcdefghi")
    return tuple(
        (*(next(letters) for _ in range(dimensions)), f"t{'xyz'[r]}") for r in range(dimensions)
    )


def _written(entry: Entry) -> str:
    whole = not isinstance(entry, str) and float(entry).is_integer()
    return repr(int(entry) if whole else entry)


def _checked(table: Table) -> tuple[tuple[Entry, ...], ...]:
    """Return a table as tuples; raise unless it is one."""
    try:
        rows = tuple(tuple(row) for row in table)
    except TypeError:
        raise TypeError(f"table: expected rows of numbers and names, got {table!r}") from None
    if [len(row) for row in rows] not in ([3, 3], [4, 4, 4]):
        raise ValueError(
            f"table: expected 2 rows of 3 entries or 3 rows of 4, got {[len(row) for row in rows]}"
        )
    for entry in itertools.chain(*rows):
        if isinstance(entry, str):
            if not entry.removeprefix("-").isidentifier():
                raise ValueError(
                    f"table: expected a name, with or without a minus before it, got {entry!r}"
                )
        elif isinstance(entry, bool) or not isinstance(entry, Real):
            raise TypeError(f"table: expected numbers and names, got {entry!r}")
        elif not math.isfinite(entry):
            raise ValueError(f"table: expected finite numbers, got {entry!r}")
    return rows


def _merged(left: Table, right: Table) -> list[list[Entry]]:
    """Return the table that obeys both: entry by entry, names are set to numbers or to one another."""
    bound: dict[
        Any, tuple[float, Any]
    ] = {}  # a name of a side: a factor, and the name that is left

    def resolve(side: int, entry: Entry) -> tuple[float, Any]:
        """Return a number and None, or a sign and a free name."""
        if not isinstance(entry, str):
            return float(entry), None
        factor, name = (-1.0 if entry.startswith("-") else 1.0), (side, entry.lstrip("-"))
        while name in bound:
            more, after = bound[name]
            factor *= more
            if after is None:
                return factor, None
            name = after
        return factor, name

    places = list(itertools.product(range(len(left)), range(len(left[0]))))
    for r, c in places:
        (a, name), (b, other) = resolve(0, left[r][c]), resolve(1, right[r][c])
        if name is None and other is None:
            if a != b:
                raise ValueError(
                    f"&: the tables contradict each other in row {r}, column {c}: {a:g} and {b:g}"
                )
        elif name is None:
            bound[other] = (a * b, None)  # b is a sign
        elif other is None:
            bound[name] = (a * b, None)
        elif name == other:
            if a != b:  # x = -x
                bound[name] = (0.0, None)
        else:
            bound[other] = (a * b, name)
    written: dict[tuple[int, str], str] = {}
    rows: list[list[Entry]] = [[0.0] * len(left[0]) for _ in left]
    for r, c in places:
        value, name = resolve(0, left[r][c])
        if name is None:
            rows[r][c] = value + 0.0
            continue
        if name not in written:
            free = name[1]
            while free in written.values():
                free += "_"
            written[name] = free
        rows[r][c] = ("-" if value < 0 else "") + written[name]
    return rows


class Factored(Linear):
    """An affine transform by its parts: scale first, then shear, rotation and translation, those that are there.

    Unlike the entries of a matrix, its parameters have a meaning each, and stay in bounds: an angle turns and does not
    stretch, a logarithm of a scale never gives a mirror image.

    Parameters
    ----------
    scale : bool, default False
        One scale for all axes.
    scales : bool, default False
        A scale for each axis.
    log : bool, default False
        True for the logarithms of scales as parameters: a scale is then always positive.
    shear : bool, default False
        How far x moves with y; in the plane alone.
    rotation : bool or str, default False
        In the plane an angle, in radians. In space three numbers: "axis-angle" (True), an axis times an angle in
        radians, or "quaternion", the x, y and z of a quaternion whose real part is 1 before it is normalised.
    translation : bool, default False
    dimensions : {2, 3}, default 2

    Raises
    ------
    ValueError
        If no part is there, or two contradict each other.

    Notes
    -----
    Parameters stand in the order in which the parts act on a point. Derived in chapter 6. ``&`` gives the family of the
    parts that both have.

    Examples
    --------
    >>> family = Factored(scales=True, log=True, translation=True)
    >>> family.names
    ('log_sx', 'log_sy', 'tx', 'ty')
    >>> family.identity()
    array([0., 0., 0., 0.])
    """

    def __init__(
        self,
        *,
        scale: bool = False,
        scales: bool = False,
        log: bool = False,
        shear: bool = False,
        rotation: bool | str = False,
        translation: bool = False,
        dimensions: int = 2,
    ) -> None:
        if dimensions not in (2, 3):
            raise ValueError(f"dimensions: expected 2 or 3, got {dimensions!r}")
        if scale and scales:
            raise ValueError("scale, scales: expected one of the two, got both")
        if log and not (scale or scales):
            raise ValueError("log: expected scale or scales beside it, got neither")
        if shear and dimensions == 3:
            raise ValueError("shear: expected dimensions=2 beside it, got 3; use Affine")
        ways = (False, True) if dimensions == 2 else (False, True, "axis-angle", "quaternion")
        if rotation not in ways:
            raise ValueError(f"rotation: expected one of {ways}, got {rotation!r}")
        if dimensions == 3 and rotation is True:
            rotation = "axis-angle"
        self.dimensions = dimensions
        self.parts = {
            "scale": scale,
            "scales": scales,
            "log": log,
            "shear": shear,
            "rotation": rotation,
            "translation": translation,
        }
        axes, before = "xyz"[:dimensions], "log_s" if log else "s"
        self.names = (
            *([before] if scale else []),
            *([before + axis for axis in axes] if scales else []),
            *(["k"] if shear else []),
            *((["angle"] if dimensions == 2 else ["rx", "ry", "rz"]) if rotation else []),
            *(["t" + axis for axis in axes] if translation else []),
        )
        self.num_parameters = len(self.names)
        if not self.names:
            raise ValueError(
                "expected at least one of scale, scales, shear, rotation and translation, got none"
            )

    def identity(self) -> Array:
        """Return the parameters of the identity: scales of 1 (their logarithms 0), and 0 for the rest."""
        return float_identity(
            [1.0 if name in ("s", "sx", "sy", "sz") else 0.0 for name in self.names]
        )

    def matrix(self, theta: Array) -> Array:
        """Return the matrices, shape (N, 2, 3) or (N, 3, 4), of parameters of shape (N, P): see `Linear.matrix`."""
        xp = self.check(theta)
        d, parts = self.dimensions, self.parts
        given = dict(zip(self.names, (theta[:, i] for i in range(theta.shape[1])), strict=True))
        one, zero = xp.ones_like(theta[:, 0]), xp.zeros_like(theta[:, 0])
        before = "log_s" if parts["log"] else "s"
        scales = [given.get(before + axis, given.get(before)) for axis in "xyz"[:d]]
        if parts["log"]:
            scales = [xp.exp(s) for s in scales]
        scales = [one if s is None else s for s in scales]
        if d == 2:
            angle, k = given.get("angle"), given.get("k", zero)
            c, s = (one, zero) if angle is None else (xp.cos(angle), xp.sin(angle))
            linear = [c, c * k - s, s, s * k + c]
        elif parts["rotation"]:
            way = _quaternion if parts["rotation"] == "quaternion" else _axis_angle
            linear = way(given["rx"], given["ry"], given["rz"], xp)
        else:
            linear = [one if i % 4 == 0 else zero for i in range(9)]
        entries = []
        for r in range(d):
            entries += [linear[d * r + c] * scales[c] for c in range(d)]
            entries.append(given.get("t" + "xyz"[r], zero))
        return xp.reshape(xp.stack(entries, axis=-1), (theta.shape[0], d, d + 1))

    def _read(self, matrix: Array, xp: Any) -> Array:
        d, parts = self.dimensions, self.parts
        columns = [matrix[:, :, c] for c in range(d)]
        lengths = [xp.sqrt(xp.sum(column * column, axis=-1)) for column in columns]
        found = {"t" + "xyz"[r]: matrix[:, r, d] for r in range(d)}
        if d == 2:
            # R H S = R [[sx, k sy], [0, sy]], and without a rotation a mirror image has a negative sx.
            a, c = matrix[:, 0, 0], matrix[:, 1, 0]
            sx = lengths[0] if parts["rotation"] else a
            found["angle"] = xp.atan2(c, a)
            cosine, sine = (a / sx, c / sx) if parts["rotation"] else (xp.ones_like(a), 0 * a)
            sy = cosine * matrix[:, 1, 1] - sine * matrix[:, 0, 1]
            found["k"] = (cosine * matrix[:, 0, 1] + sine * matrix[:, 1, 1]) / sy
            lengths = [sx, sy]
        elif parts["rotation"]:
            turned = [
                column / length[:, None]
                for column, length in zip(columns, lengths, strict=True)
            ]
            vector = (
                _to_quaternion(turned, xp)
                if parts["rotation"] == "quaternion"
                else _to_axis_angle(turned, xp)
            )
            found |= {"r" + axis: part for axis, part in zip("xyz", vector, strict=True)}
        else:
            lengths = [matrix[:, i, i] for i in range(d)]
        for axis, length in zip("xyz", lengths, strict=False):
            size = xp.log(xp.abs(length)) if parts["log"] else length
            before = "log_s" if parts["log"] else "s"
            found[before + axis] = size
            found.setdefault(before, size)
        return xp.stack([found[name] for name in self.names], axis=-1)

    def __and__(self, other: Factored) -> Factored:
        """Return the family of the parts that both have."""
        if not isinstance(other, Factored):
            return NotImplemented
        if self.dimensions != other.dimensions:
            raise ValueError(
                f"&: expected families of {self.dimensions} dimensions, got one of {other.dimensions}"
            )
        one, two = self.parts, other.parts
        sized = [p["scale"] or p["scales"] for p in (one, two)]
        if all(sized) and one["log"] != two["log"]:
            raise ValueError(
                "&: expected both scales as logarithms or neither, got one of each"
            )
        if one["rotation"] and two["rotation"] and one["rotation"] != two["rotation"]:
            raise ValueError(
                f"&: expected one kind of rotation, got {one['rotation']!r} and {two['rotation']!r}"
            )
        both = all(sized)
        return Factored(
            scale=both and bool(one["scale"] or two["scale"]),
            scales=bool(one["scales"] and two["scales"]),
            log=both and bool(one["log"]),
            shear=bool(one["shear"] and two["shear"]),
            rotation=one["rotation"] and two["rotation"],
            translation=bool(one["translation"] and two["translation"]),
            dimensions=self.dimensions,
        )

    def __repr__(self) -> str:
        given = [f"{name}={value!r}" for name, value in self.parts.items() if value]
        given += ["dimensions=3"] if self.dimensions == 3 else []
        return f"Factored({', '.join(given)})"


def Rigid(*, dimensions: int = 2, rotation: bool | str = True) -> Factored:
    """Return the family of rotations and translations: three parameters (angle, tx, ty), in space six.

    Parameters
    ----------
    dimensions : {2, 3}, default 2
    rotation : bool or str, default True
        As for `Factored`.

    Raises
    ------
    ValueError
        As `Factored`.

    Examples
    --------
    >>> Rigid().names
    ('angle', 'tx', 'ty')
    >>> Rigid(dimensions=3, rotation="quaternion").names
    ('rx', 'ry', 'rz', 'tx', 'ty', 'tz')
    """
    return Factored(rotation=rotation, translation=True, dimensions=dimensions)


def Similarity(
    *, log: bool = False, dimensions: int = 2, rotation: bool | str = True
) -> Factored:
    """Return the family of rigid transforms with a scale: four parameters (s, angle, tx, ty), in space seven.

    Parameters
    ----------
    log : bool, default False
        True for the logarithm of the scale as parameter.
    dimensions : {2, 3}, default 2
    rotation : bool or str, default True
        As for `Factored`.

    Raises
    ------
    ValueError
        As `Factored`.

    Examples
    --------
    >>> Similarity().identity()
    array([1., 0., 0., 0.])
    """
    return Factored(
        scale=True, log=log, rotation=rotation, translation=True, dimensions=dimensions
    )


class ExponentialAffine(Linear):
    """Affine transforms by what generates them: theta is a velocity's matrix, row by row, and the identity is 0.

    However large theta is, the transform can be inverted, by -theta, and is no mirror image.

    Parameters
    ----------
    dimensions : {2, 3}, default 2

    Raises
    ------
    ValueError
        If dimensions is neither.

    Notes
    -----
    See `stnlib.transforms.exponential`. Derived in chapter 6.

    Examples
    --------
    >>> turn = np.asarray([[0.0, -np.pi / 2, 0.0, np.pi / 2, 0.0, 0.0]])
    >>> ExponentialAffine().matrix(turn).round(6) + 0.0
    array([[[ 0., -1.,  0.],
            [ 1.,  0.,  0.]]])
    """

    def __init__(self, *, dimensions: int = 2) -> None:
        if dimensions not in (2, 3):
            raise ValueError(f"dimensions: expected 2 or 3, got {dimensions!r}")
        self.dimensions, self.num_parameters = dimensions, dimensions * (dimensions + 1)

    def identity(self) -> Array:
        """Return the parameters of the identity: zeros."""
        return np.zeros(self.num_parameters)

    def matrix(self, theta: Array) -> Array:
        """Return the matrices, shape (N, 2, 3) or (N, 3, 4), of parameters of shape (N, P): see `Linear.matrix`."""
        xp = self.check(theta)
        d = self.dimensions
        return algebra.exponential(xp.reshape(theta, (theta.shape[0], d, d + 1)))

    def _read(self, matrix: Array, xp: Any) -> Array:
        return xp.reshape(algebra.logarithm(matrix), (matrix.shape[0], self.num_parameters))

    def inverse(self, theta: Array) -> Array:
        """Return the parameters of the transforms that undo those of theta: -theta."""
        self.check(theta)
        return -theta

    def __repr__(self) -> str:
        return f"ExponentialAffine({'dimensions=3' if self.dimensions == 3 else ''})"


# Rotations in space


def _quaternion(x: Array, y: Array, z: Array, xp: Any) -> list[Array]:
    """Return the entries of the rotation of the quaternion (1, x, y, z), normalised."""
    n = 1 + x * x + y * y + z * z
    return [
        (1 + x * x - y * y - z * z) / n,
        2 * (x * y - z) / n,
        2 * (x * z + y) / n,
        2 * (x * y + z) / n,
        (1 - x * x + y * y - z * z) / n,
        2 * (y * z - x) / n,
        2 * (x * z - y) / n,
        2 * (y * z + x) / n,
        (1 - x * x - y * y + z * z) / n,
    ]


def _axis_angle(x: Array, y: Array, z: Array, xp: Any) -> list[Array]:
    """Return the entries of the rotation about (x, y, z) by its length in radians (Rodrigues)."""
    square = x * x + y * y + z * z
    small = square < 1e-4
    angle = xp.sqrt(xp.where(small, xp.ones_like(square), square))
    # sin(t) / t and (1 - cos(t)) / t², by their series where t is near 0.
    a = xp.where(small, 1 - square / 6 + square**2 / 120, xp.sin(angle) / angle)
    b = xp.where(small, 0.5 - square / 24 + square**2 / 720, (1 - xp.cos(angle)) / angle**2)
    return [
        1 - b * (y * y + z * z),
        b * x * y - a * z,
        b * x * z + a * y,
        b * x * y + a * z,
        1 - b * (x * x + z * z),
        b * y * z - a * x,
        b * x * z - a * y,
        b * y * z + a * x,
        1 - b * (x * x + y * y),
    ]


def _unit_quaternion(columns: Sequence[Array], xp: Any) -> tuple[Array, list[Array]]:
    """Return the real part, not negative, and x, y and z of the unit quaternions of rotations, given by columns."""
    m = [[columns[c][:, r] for c in range(3)] for r in range(3)]
    x, y, z = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    xy, xz, yz = m[0][1] + m[1][0], m[0][2] + m[2][0], m[1][2] + m[2][1]
    squares = [  # four times the square of each part
        1 + m[0][0] + m[1][1] + m[2][2],
        1 + m[0][0] - m[1][1] - m[2][2],
        1 - m[0][0] + m[1][1] - m[2][2],
        1 - m[0][0] - m[1][1] + m[2][2],
    ]
    # All four times one part: the largest, which is far from 0.
    rows = [
        [squares[0], x, y, z],
        [x, squares[1], xy, xz],
        [y, xy, squares[2], yz],
        [z, xz, yz, squares[3]],
    ]
    largest = xp.argmax(xp.stack(squares, axis=-1), axis=-1)
    parts = []
    for column in range(4):
        part = rows[0][column]
        for row in range(1, 4):
            part = xp.where(largest == row, rows[row][column], part)
        parts.append(part)
    length = xp.sqrt(sum(part * part for part in parts))
    length = xp.where(parts[0] < 0, -length, length)
    real, *vector = (part / length for part in parts)
    return real, vector


def _to_quaternion(columns: Sequence[Array], xp: Any) -> list[Array]:
    """Return x, y and z of the quaternion (1, x, y, z) of rotations, given by their columns."""
    real, vector = _unit_quaternion(columns, xp)
    if bool(xp.any(real < 1e-6)):
        raise ValueError(
            "matrix: expected a rotation by less than half a turn, got half a turn, which has no such quaternion; "
            'use rotation="axis-angle"'
        )
    return [part / real for part in vector]


def _to_axis_angle(columns: Sequence[Array], xp: Any) -> list[Array]:
    """Return the axis times the angle of rotations, given by their columns."""
    real, vector = _unit_quaternion(columns, xp)
    length = xp.sqrt(sum(part * part for part in vector))
    small = length < 1e-6
    safe = xp.where(small, xp.ones_like(length), length)
    factor = xp.where(small, 2 * xp.ones_like(length), 2 * xp.atan2(length, real) / safe)
    return [factor * part for part in vector]
