"""Recipes by the name people ask for: ``published``, ``tiled``, ``max256`` (any side), ``raw``."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from datahub.core.errors import BadArgument
from datahub.pack.recipes import Recipe

MAX = re.compile(r"max([1-9]\d{1,3})")
KNOWN = "published, tiled, max256 (or another shorter side), raw"
LEAST_SIDE, MOST_SIDE = 16, 4096


def recipe(name: str) -> Recipe:
    """Raises `BadArgument` for a name that is none, `MissingTool` where this machine lacks what the recipe runs."""
    if side := MAX.fullmatch(name):
        if not LEAST_SIDE <= int(side[1]) <= MOST_SIDE:
            raise BadArgument("variant", name, f"the shorter side must be from {LEAST_SIDE} to {MOST_SIDE}")
        from datahub.pack.recipes.smaller import Smaller

        return Smaller(int(side[1]))
    if name == "tiled":
        from datahub.pack.recipes.tiled import Tiled
        from datahub.pack.tiling import find_jpegtran

        find_jpegtran()
        return Tiled()
    if name == "raw":
        from datahub.pack.recipes.raw import Raw

        return Raw()
    if name != "published":
        raise BadArgument("variant", name, "is not a recipe", f"known: {KNOWN}")
    from datahub.pack.recipes.published import Published

    return Published()


def extension(recipe: Recipe, source: str) -> str:
    """The extension (or format) of the images it makes, given the source's."""
    if recipe.name == "raw":
        return "ppm"
    return "jpeg" if MAX.fullmatch(recipe.name) else source


def sizes(recipe: Recipe, of_source: NDArray[np.int64]) -> NDArray[np.int64]:
    """About how many bytes an image has afterwards. Shards are cut by it, so it depends on nothing else."""
    if side := MAX.fullmatch(recipe.name):
        quarter_byte_a_pixel = int(side[1]) ** 2 // 3
        return np.minimum(of_source, quarter_byte_a_pixel)
    return of_source * 6 if recipe.name == "raw" else of_source


RATES = {"published": 2500.0, "tiled": 115.0, "raw": 350.0}
"""Images of ImageNet's size a second and process, measured on a small machine: for estimates of time only."""


def seconds(recipe: Recipe, samples: int, workers: int) -> float:
    return samples / RATES.get(recipe.name, 280.0) / workers
