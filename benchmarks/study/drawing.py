"""Frames of the study's videos, drawn straight into arrays: one colored shape in a place, many frames at once.

Axes: N frames, S height and width in pixels.

Shapes are bitmaps of `ICON_SIZE` pixels that stand on a grid of `GRID_STEP` pixels: a small transformer that cuts a
picture into patches of four pixels learns them in seconds, where outlines at any place and angle take it hours.
"""

from dataclasses import dataclass

import numpy as np

from training.narrated_shapes.scene_drawing import COLORS

ICON_SIZE = 6
GRID_STEP = 2
_ICONS = {
    "circle": "..##.. .####. ###### ###### .####. ..##..",
    "ring": ".####. ##..## #....# #....# ##..## .####.",
    "square": "###### ###### ###### ###### ###### ######",
    "cross": "..##.. ..##.. ###### ###### ..##.. ..##..",
    "star": "##..## ###### .####. .####. ###### ##..##",
    "triangle": "#..... ##.... ###... ####.. #####. ######",
}
ICONS = {
    name: np.array([[pixel == "#" for pixel in row] for row in rows.split()], np.float32)
    for name, rows in _ICONS.items()
}
PLACES: dict[str, tuple[int, int, int]] = {"night": (14, 16, 34), "grass": (52, 84, 44), "wall": (104, 62, 52)}
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
GHOST_OPACITIES = (0.6, 0.3)  # of a long exposure: one step of the grid behind the shape, and two
NOISE_LEVELS = 6.0  # standard deviation of the camera noise, in 8-bit levels


@dataclass(frozen=True)
class Instants:
    """What N frames show.

    colors, shapes, places: str (N,). corner: int (N, 2), x and y of the shape's upper left pixel. trail: int (N, 2),
    the direction in which a shape moves that was exposed so long that it has left ghosts behind it; zeros: a short
    exposure.
    """

    colors: np.ndarray
    shapes: np.ndarray
    places: np.ndarray
    corner: np.ndarray
    trail: np.ndarray


def draw_frames(instants: Instants, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 (N, S, S, 3) RGB; the generator draws brightness and noise."""
    margin = GRID_STEP * len(GHOST_OPACITIES)  # ghosts may leave the picture
    cover = np.zeros((len(instants.corner), image_size + 2 * margin, image_size + 2 * margin), np.float32)
    for number, shape in enumerate(instants.shapes):
        icon, corner, trail = ICONS[shape], instants.corner[number], instants.trail[number]
        steps = [(0, 1.0), *enumerate(GHOST_OPACITIES, start=1)] if trail.any() else [(0, 1.0)]
        for behind, opacity in steps:
            x, y = corner - behind * GRID_STEP * trail + margin
            region = cover[number, y : y + ICON_SIZE, x : x + ICON_SIZE]
            np.maximum(region, opacity * icon, out=region)
    cover = cover[:, margin:-margin, margin:-margin, None]
    ground = np.array([PLACES[place] for place in instants.places], np.float32)[:, None, None]
    ink = np.array([COLORS[color] for color in instants.colors], np.float32)[:, None, None]
    frames = ground + cover * (ink - ground)
    frames *= rng.uniform(0.88, 1.06, (len(frames), 1, 1, 1)).astype(np.float32)
    frames += NOISE_LEVELS * rng.standard_normal(frames.shape, np.float32)
    return np.clip(frames, 0, 255, out=frames).astype(np.uint8)
