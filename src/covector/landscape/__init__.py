"""Landscape: what the loss looks like around the parameters, and along training."""

from covector.landscape.roughness import Roughness, roughness_index, total_variation
from covector.landscape.slices import filter_normalized, plane, principal_plane, random_directions, slices

__all__ = [
    "Roughness",
    "filter_normalized",
    "plane",
    "principal_plane",
    "random_directions",
    "roughness_index",
    "slices",
    "total_variation",
]
