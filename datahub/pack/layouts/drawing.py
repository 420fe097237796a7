"""Pictures of one shape on a cluttered ground, each decided by a key alone: no generator of any library is asked.

Lengths are parts of the picture's shorter side, so a picture looks alike at every size.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

SHIFT = 4
"""OpenCV draws to 1/16 pixel."""
DRAWS = 512
"""Numbers drawn for a picture; more than the most cluttered needs, and cheaper than asking twice."""
NOISE = 4091
"""A prime, so that rows do not repeat the grain of those above them."""

Colour = tuple[int, int, int]
Contour = list[tuple[float, float]]


class Draws:
    """A stream of numbers decided by ``key``: SHAKE-128 of its parts."""

    def __init__(self, *key: int | str) -> None:
        self._key = "/".join(map(str, key)).encode()
        self._numbers = self._more(0)
        self._round = 0

    def _more(self, number: int) -> Iterator[int]:
        data = hashlib.shake_128(b"%d/" % number + self._key).digest(4 * DRAWS)
        return iter(np.frombuffer(data, "<u4").tolist())

    def _next(self) -> int:
        number = next(self._numbers, None)
        while number is None:
            self._round += 1
            self._numbers = self._more(self._round)
            number = next(self._numbers, None)
        return number

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * (self._next() / 2**32)

    def below(self, count: int) -> int:
        return self._next() * count >> 32

    def chance(self, part: float) -> bool:
        return self.between(0, 1) < part

    def colour(self) -> Colour:
        return self.below(256), self.below(256), self.below(256)

    def noise(self) -> np.ndarray:
        """int16 (NOISE,) in [-128, 127], roughly bell-shaped."""
        data = hashlib.shake_128(b"noise/" + self._key).digest(2 * NOISE)
        halves = np.frombuffer(data, np.int8).reshape(2, NOISE) >> 1
        return np.asarray(np.add(halves[0], halves[1], dtype=np.int16))


# -- shapes: contours around the origin, within the unit circle --------------------------------------------------------


def _regular(corners: int, radius: float = 1.0, turn: float = 0.0) -> Contour:
    angles = [turn + 2 * math.pi * i / corners for i in range(corners)]
    return [(radius * math.sin(angle), -radius * math.cos(angle)) for angle in angles]


def _star(draws: Draws) -> list[Contour]:
    inner = draws.between(0.36, 0.5)
    outer, notches = _regular(5), _regular(5, inner, math.pi / 5)
    return [[point for pair in zip(outer, notches, strict=True) for point in pair]]


def _cross(draws: Draws) -> list[Contour]:
    arm = draws.between(0.25, 0.38)
    corner = [(-arm, -1.0), (arm, -1.0), (arm, -arm)]
    turns = [(1, 0), (0, 1), (-1, 0), (0, -1)]
    return [[(c * x - s * y, s * x + c * y) for c, s in turns for x, y in corner]]


def _ring(draws: Draws) -> list[Contour]:
    return [_regular(48), _regular(36, draws.between(0.5, 0.72))]


def _heart(draws: Draws) -> list[Contour]:
    angles = [2 * math.pi * i / 40 for i in range(40)]
    depth = draws.between(0.9, 1.05)
    waves = [13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a) for a in angles]
    return [[(math.sin(a) ** 3, -depth * wave / 16) for a, wave in zip(angles, waves, strict=True)]]


def _crescent(draws: Draws) -> list[Contour]:
    """The unit disc without a disc of the same size moved aside."""
    aside = draws.between(0.55, 0.9)
    half = math.acos(aside / 2)
    outer = [half + (2 * math.pi - 2 * half) * i / 30 for i in range(31)]
    inner = [math.pi + half - 2 * half * i / 20 for i in range(1, 20)]
    points = [(math.cos(a), math.sin(a)) for a in outer]
    return [points + [(aside + math.cos(a), math.sin(a)) for a in inner]]


def _contours(name: str, draws: Draws) -> list[Contour]:
    corners = {"circle": 48, "triangle": 3, "square": 4, "pentagon": 5, "hexagon": 6}
    if name in corners:
        return [_regular(corners[name])]
    return {"star": _star, "cross": _cross, "ring": _ring, "heart": _heart, "crescent": _crescent}[name](draws)


NAMES = ("circle", "square", "triangle", "pentagon", "hexagon", "star", "cross", "ring", "heart", "crescent")


# -- the picture -------------------------------------------------------------------------------------------------------


def picture(name: str, width: int, height: int, draws: Draws, clutter: float = 1.0) -> np.ndarray:
    """uint8 (height, width, 3), RGB. ``clutter`` scales how much lies around and on the shape; 0 is a bare ground."""
    side = min(width, height)
    base = draws.colour()
    canvas = _ground(width, height, base, draws)
    _strokes(canvas, side, round(clutter * draws.between(0, 3)), draws)
    _blobs(canvas, side, round(clutter * draws.between(1, 6)), draws)
    centre, radius = _shape(canvas, name, base, draws)
    if draws.chance(0.3 * min(clutter, 2.0)):
        _occlude(canvas, centre, radius, draws)
    if draws.chance(0.3):
        canvas = cv2.GaussianBlur(canvas, (3, 3), 0)
    return _noisy(canvas, draws)


def _ground(width: int, height: int, base: Colour, draws: Draws) -> np.ndarray:
    """A few colours near ``base``, melting into each other."""
    rows, columns = 2 + draws.below(4), 2 + draws.below(5)
    spread = draws.between(8, 42)
    cells = [_clip(part + draws.between(-spread, spread)) for _ in range(rows * columns) for part in base]
    grid = np.array(cells, np.uint8).reshape(rows, columns, 3)
    how = cv2.INTER_NEAREST if draws.chance(0.15) else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(grid, (width, height), interpolation=how))


def _strokes(canvas: np.ndarray, side: int, count: int, draws: Draws) -> None:
    for _ in range(count):
        points = [_anywhere(canvas, draws) for _ in range(2 + draws.below(3))]
        thickness = max(1, round(side * draws.between(0.005, 0.02)))
        cv2.polylines(canvas, [_fixed(points)], False, draws.colour(), thickness, cv2.LINE_AA, SHIFT)


def _blobs(canvas: np.ndarray, side: int, count: int, draws: Draws) -> None:
    """Small irregular patches; none is one of the shapes."""
    for _ in range(count):
        x, y = _anywhere(canvas, draws)
        size = side * draws.between(0.02, 0.08)
        _patch(canvas, x, y, size, draws)


def _patch(canvas: np.ndarray, x: float, y: float, size: float, draws: Draws) -> None:
    corners = 3 + draws.below(6)
    rays = [(2 * math.pi * i / corners, size * draws.between(0.35, 1)) for i in range(corners)]
    points = [(x + ray * math.cos(angle), y + ray * math.sin(angle)) for angle, ray in rays]
    cv2.fillPoly(canvas, [_fixed(points)], draws.colour(), cv2.LINE_AA, SHIFT)


def _shape(canvas: np.ndarray, name: str, base: Colour, draws: Draws) -> tuple[tuple[float, float], float]:
    """Draw the shape in a random pose; where it stands and how large it is, in pixels."""
    height, width = canvas.shape[:2]
    radius = min(width, height) * draws.between(0.32, 0.46)
    x, y = (draws.between(0.9 * radius, size - 0.9 * radius) for size in (width, height))
    pose = _pose(radius, draws)
    contours = [_posed(contour, pose, x, y) for contour in _contours(name, draws)]
    fill = _apart(draws.colour(), base)
    if draws.chance(0.35):
        _fill_shaded(canvas, contours, fill, draws)
    else:
        cv2.fillPoly(canvas, contours, fill, cv2.LINE_AA, SHIFT)
    if draws.chance(0.5):
        thickness = max(1, round(radius * draws.between(0.03, 0.1)))
        cv2.polylines(canvas, contours, True, draws.colour(), thickness, cv2.LINE_AA, SHIFT)
    return (x, y), radius


Pose = tuple[float, float, float, float, float, float]


def _pose(radius: float, draws: Draws) -> Pose:
    """A matrix that turns, shears, stretches a little and scales, and two terms of perspective."""
    turn, shear = draws.between(0, 2 * math.pi), draws.between(-0.1, 0.1)
    tall = radius * draws.between(0.92, 1.0)
    wide = radius * draws.between(0.92, 1.0)
    cos, sin = math.cos(turn), math.sin(turn)
    return (
        wide * (cos + shear * sin),
        wide * (shear * cos - sin),
        tall * sin,
        tall * cos,
        draws.between(-0.07, 0.07),
        draws.between(-0.07, 0.07),
    )


def _posed(contour: Contour, pose: Pose, x: float, y: float) -> np.ndarray:
    a, b, c, d, tilt, lean = pose
    depths = [1 + tilt * u + lean * v for u, v in contour]
    return _fixed(
        [(x + (a * u + b * v) / z, y + (c * u + d * v) / z) for (u, v), z in zip(contour, depths, strict=True)]
    )


def _fill_shaded(canvas: np.ndarray, contours: Sequence[np.ndarray], fill: Colour, draws: Draws) -> None:
    """Fill with a texture of colours near ``fill``."""
    height, width = canvas.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, contours, 255, cv2.LINE_AA, SHIFT)
    left, top, wide, high = cv2.boundingRect(mask)
    part = canvas[top : top + high, left : left + wide]
    texture = _ground(wide, high, fill, draws)
    weight = mask[top : top + high, left : left + wide, None].astype(np.int16)
    change = (texture.astype(np.int16) - part) * (weight >> 1)
    part += (change >> 7).astype(np.uint8)


def _occlude(canvas: np.ndarray, centre: tuple[float, float], radius: float, draws: Draws) -> None:
    """Something small in front of the shape's edge."""
    angle = draws.between(0, 2 * math.pi)
    x, y = centre[0] + 0.8 * radius * math.cos(angle), centre[1] + 0.8 * radius * math.sin(angle)
    if draws.chance(0.5):
        _patch(canvas, x, y, radius * draws.between(0.2, 0.45), draws)
        return
    along = draws.between(0, 2 * math.pi)
    dx, dy = 1.5 * radius * math.cos(along), 1.5 * radius * math.sin(along)
    thickness = max(1, round(radius * draws.between(0.06, 0.2)))
    ends = _fixed([(x - dx, y - dy), (x + dx, y + dy)])
    cv2.polylines(canvas, [ends], False, draws.colour(), thickness, cv2.LINE_AA, SHIFT)


def _noisy(canvas: np.ndarray, draws: Draws) -> np.ndarray:
    """Grain over everything: one piece of noise, repeated."""
    grain = draws.noise() // (3 + draws.below(16))
    noise = np.resize(grain, canvas.size).reshape(canvas.shape)
    return np.asarray(np.clip(canvas + noise, 0, 255), np.uint8)


def _anywhere(canvas: np.ndarray, draws: Draws) -> tuple[float, float]:
    return draws.between(0, canvas.shape[1]), draws.between(0, canvas.shape[0])


def _apart(colour: Colour, base: Colour, least: int = 180) -> Colour:
    """``colour``, or its opposite where it is too near to ``base`` to be seen."""
    if sum(abs(left - right) for left, right in zip(colour, base, strict=True)) >= least:
        return colour
    red, green, blue = ((part + 128) % 256 for part in base)
    return red, green, blue


def _fixed(points: Sequence[tuple[float, float]]) -> np.ndarray:
    """int32 (n, 2), in OpenCV's fixed point."""
    return np.asarray(np.rint(np.array(points) * (1 << SHIFT)), np.int32)


def _clip(value: float) -> int:
    return min(255, max(0, int(value)))
