"""Two-dimensional shapes: a class rule on a square, its boundary, and samplers for points off and on it.

Every shape splits the square [-2, 2]² into two classes of equal area (8). The boundary consists of line segments and
circles, so distances have a closed form. Segments may extend beyond the square: distances refer to the whole curve,
while points are only placed on the part inside.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from math import pi, sqrt
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from lratlas.errors import TaskError

Points = NDArray[np.floating]
Flags = NDArray[np.bool_]

HALF_WIDTH = 2.0  # of the square
FAR = 4.0  # end of curves that leave the square; no point of the square has its nearest curve point beyond
SMALLEST_SHARE = 1e-3  # of the square, that a margin must leave to each class: rejection sampling stays fast
BLOCK = 4096  # candidates per round of rejection sampling


@dataclass(frozen=True, kw_only=True, eq=False)
class Shape:
    """A rule that splits the square into two classes, and the curves between them.

    Attributes:
        name: The name in ``SHAPES``.
        is_one: Maps points [n, 2] to flags [n], true if the class is 1.
        segments: Ends of the boundary's straight pieces, [pieces, 2 ends, 2 coordinates].
        radii: Radii of the boundary's circles around the origin.
    """

    name: str
    is_one: Callable[[Points], Flags]
    segments: NDArray[np.float64]
    radii: tuple[float, ...] = ()


def boundary_distance(shape: Shape, points: Points) -> NDArray[np.float64]:
    """Euclidean distance of each point to the nearest boundary curve of ``shape``.

    Args:
        shape: One of ``SHAPES``.
        points: Points of the square, [n, 2].

    Returns:
        Distances, [n].
    """
    exact = points.astype(np.float64)
    nearest = np.full(len(exact), np.inf)
    for start, end in shape.segments:
        along = end - start
        position = np.clip((exact - start) @ along / (along @ along), 0.0, 1.0)
        foot = start + position[:, None] * along
        nearest = np.minimum(nearest, np.hypot(*(exact - foot).T))
    for radius in shape.radii:
        nearest = np.minimum(nearest, np.abs(np.hypot(*exact.T) - radius))
    return nearest


@lru_cache
def margin_limit(shape: Shape) -> float:
    """The smallest margin that leaves almost no points to one of the classes (a thousandth of the square).

    It is determined on a regular grid over the square.
    """
    axis = np.linspace(-HALF_WIDTH, HALF_WIDTH, 257)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    distance, one = boundary_distance(shape, grid), shape.is_one(grid)
    rank = round(SMALLEST_SHARE * len(grid))
    return min(float(np.sort(distance[flags])[-rank]) for flags in (one, ~one))


def check_margin(shape: Shape, margin: float) -> None:
    """Raise ``TaskError`` unless ``margin`` is at least 0 and leaves room for both classes of ``shape``."""
    limit = margin_limit(shape)
    if not 0 <= margin < limit:
        raise TaskError(
            f"margin must be at least 0 and below {limit:.2f} for shape '{shape.name}', because larger margins"
            f" leave no room for a class, but it is {margin}."
        )


def informative_points(
    shape: Shape, one: Flags, *, margin: float, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Points that are uniform in the square given their class, none closer than ``margin`` to a boundary curve.

    Args:
        shape: One of ``SHAPES``.
        one: True where the point must be of class 1, [n].
        margin: Minimum Euclidean distance to every curve.
        generator: Source of randomness; the call advances it.

    Returns:
        Points, [n, 2]; the margin holds for the rounded values.

    Raises:
        TaskError: The margin is negative or leaves a class empty.
    """
    check_margin(shape, margin)
    points = np.empty((len(one), 2), dtype=np.float32)
    for wanted in (False, True):
        block = partial(_class_block, shape, wanted=wanted, margin=margin, generator=generator)
        points[one == wanted] = _gather(block, int((one == wanted).sum()))
    return points


def boundary_points(shape: Shape, count: int, *, generator: np.random.Generator) -> NDArray[np.float32]:
    """Points uniform in arc length on the boundary inside the square: they carry no information about the class.

    For the tick this is one of the two curves at random and a uniform first coordinate.

    Args:
        shape: One of ``SHAPES``.
        count: Number of points.
        generator: Source of randomness; the call advances it.

    Returns:
        Points, [count, 2].
    """
    return _gather(partial(_boundary_block, shape, generator=generator), count)


def _class_block(shape: Shape, *, wanted: bool, margin: float, generator: np.random.Generator) -> NDArray[np.float32]:
    # Four times a multiple of 2⁻²⁴, minus two, is exact in float32: the margin holds for the returned values.
    drawn = generator.random((BLOCK, 2), dtype=np.float32) * np.float32(4) - np.float32(HALF_WIDTH)
    return drawn[(shape.is_one(drawn) == wanted) & (boundary_distance(shape, drawn) >= margin)]


def _boundary_block(shape: Shape, *, generator: np.random.Generator) -> NDArray[np.float32]:
    start, end = shape.segments[:, 0], shape.segments[:, 1]
    radii = np.array(shape.radii, dtype=np.float64)
    lengths = np.concatenate([np.hypot(*(end - start).T), 2 * pi * radii])
    piece = generator.choice(len(lengths), size=BLOCK, p=lengths / lengths.sum())
    position = generator.random((BLOCK, 1))
    drawn = np.empty((BLOCK, 2))
    straight = piece < len(start)
    line, circle = piece[straight], piece[~straight] - len(start)
    drawn[straight] = start[line] + position[straight] * (end - start)[line]
    angle = 2 * pi * position[~straight]
    drawn[~straight] = radii[circle, None] * np.hstack([np.cos(angle), np.sin(angle)])
    return drawn[(np.abs(drawn) <= HALF_WIDTH).all(axis=1)].astype(np.float32)


def _gather(block: Callable[[], NDArray[np.float32]], count: int) -> NDArray[np.float32]:
    blocks = [np.empty((0, 2), dtype=np.float32)]
    while sum(map(len, blocks)) < count:
        blocks.append(block())
    return np.concatenate(blocks)[:count]


def _segments(*pieces: tuple[tuple[float, float], tuple[float, float]]) -> NDArray[np.float64]:
    return np.array(pieces, dtype=np.float64).reshape(-1, 2, 2)


def _mirror(segments: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([segments, segments * [-1.0, 1.0]])


def _in_quadrants(segments: NDArray[np.float64]) -> NDArray[np.float64]:
    left_too = _mirror(segments)
    return np.concatenate([left_too, left_too * [1.0, -1.0]])


_SLANT = 4 - 2 * sqrt(2)  # half-height of the stripe
_INNER, _OUTER = 0.8, sqrt(0.8**2 + 8 / pi)  # radii of the circles
_BAR = 2 - sqrt(2)  # half-width of the cross
_ARM = _BAR / (1 + sqrt(2))  # half-width of the union jack's arms, which separate at first coordinate _BAR
_ARM_SIDES = _segments(((_BAR, _ARM), (FAR, _ARM)), ((_BAR, _ARM), (FAR, FAR - _BAR + _ARM)))


def _tick(points: Points) -> Flags:
    below = np.abs(points[:, 0]) - points[:, 1]
    return (below <= 0) | (below >= 2)


def _circles(points: Points) -> Flags:
    radius = np.hypot(points[:, 0], points[:, 1])
    return (radius <= _INNER) | (radius >= _OUTER)


def _union_jack(points: Points) -> Flags:
    first, second = points[:, 0], points[:, 1]
    straight = np.minimum(np.abs(first), np.abs(second))
    diagonal = np.minimum(np.abs(first - second), np.abs(first + second)) / sqrt(2)
    return np.minimum(straight, diagonal) >= _ARM


_ALL = (
    # Class 0 is between x2 = |x1| - 2 and x2 = |x1|.
    Shape(name="tick", is_one=_tick, segments=_mirror(_segments(((0, -2), (FAR, 2)), ((0, 0), (FAR, FAR))))),
    # Class 0 is a ring.
    Shape(name="circles", is_one=_circles, segments=_segments(), radii=(_INNER, _OUTER)),
    # Six sectors of 60° around the origin, with alternating classes; x2 (3 x1² - x2²) = r³ sin 3φ.
    Shape(
        name="sectors",
        is_one=lambda p: p[:, 1] * (3 * p[:, 0] ** 2 - p[:, 1] ** 2) <= 0,
        segments=_segments(
            ((-FAR, 0), (FAR, 0)),
            ((-FAR, -FAR * sqrt(3)), (FAR, FAR * sqrt(3))),
            ((-FAR, FAR * sqrt(3)), (FAR, -FAR * sqrt(3))),
        ),
    ),
    # Class 0 is a band along the diagonal.
    Shape(
        name="stripe",
        is_one=lambda p: np.abs(p[:, 0] - p[:, 1]) >= _SLANT,
        segments=_segments(((-FAR, -FAR - _SLANT), (FAR, FAR - _SLANT)), ((-FAR, -FAR + _SLANT), (FAR, FAR + _SLANT))),
    ),
    # Class 0 is a square rotated by 45°.
    Shape(
        name="diamond",
        is_one=lambda p: np.abs(p).sum(axis=1) >= 2,
        segments=_in_quadrants(_segments(((2, 0), (0, 2)))),
    ),
    # Class 0 is below a zigzag line with peaks at x1 = -1 and x1 = 1.
    Shape(
        name="peaks",
        is_one=lambda p: p[:, 1] >= 1 - 2 * np.abs(np.abs(p[:, 0]) - 1),
        segments=_mirror(_segments(((0, -1), (1, 1)), ((1, 1), (FAR, -5)))),
    ),
    # Class 0 is a vertical cross.
    Shape(
        name="cross",
        is_one=lambda p: np.abs(p).min(axis=1) >= _BAR,
        segments=_in_quadrants(_segments(((_BAR, _BAR), (FAR, _BAR)), ((_BAR, _BAR), (_BAR, FAR)))),
    ),
    # Class 0 is the union of a vertical and a diagonal cross.
    Shape(
        name="union_jack",
        is_one=_union_jack,
        segments=_in_quadrants(np.concatenate([_ARM_SIDES, _ARM_SIDES[:, :, ::-1]])),
    ),
)

SHAPES: Mapping[str, Shape] = MappingProxyType({shape.name: shape for shape in _ALL})
"""The shapes by name."""
