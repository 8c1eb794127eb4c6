"""Frames of generated videos: one colored shape at a time moves in a scene.

Axes: T frames, S height and width in pixels (square), 3 RGB.
Positions and radii are ratios of the image's side; y points down. Place, size, angle, brightness and noise are drawn at
random; `Event` and the scene's name hold what captions and narrations name.

No single frame shows a direction: "left" and "right", "up" and "down", "grow" and "shrink" pass through the same places
and sizes in reverse order. Speed is the distance covered within the event (turns, hops or flashes per second).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (222, 26, 30),
    "orange": (255, 132, 0),
    "yellow": (250, 232, 30),
    "green": (14, 158, 34),
    "turquoise": (28, 232, 214),
    "blue": (24, 52, 236),
    "purple": (126, 22, 184),
    "pink": (255, 112, 196),
    "white": (252, 252, 252),
    "black": (6, 6, 8),
}

# Muted middle tones, so that every color above stands out from every scene.
SCENES: dict[str, tuple[int, int, int]] = {
    "snow": (160, 170, 186),
    "grass": (98, 122, 88),
    "sand": (168, 150, 116),
    "water": (84, 114, 142),
    "wall": (134, 96, 84),
    "street": (104, 104, 108),
}

MOTIONS = ("left", "right", "up", "down", "grow", "shrink", "spin", "bounce", "blink")
SPEEDS = ("slow", "fast")

PLACE_RANGE = (0.48, 0.52)  # of the middle of a shape's way, along each axis
RADIUS_RANGE = (0.28, 0.30)
MAX_TILT = 0.1  # radians
OUTLINE_RATIO = 0.06  # width of the dark line around every shape
OUTLINE_LEVEL = 12  # its brightness, of 255
TRAVEL_RATIO = {"slow": 0.12, "fast": 0.26}  # distance from the middle at which a moving shape starts and ends
SIZE_RANGE = {"slow": (0.75, 1.15), "fast": (0.45, 1.4)}  # smallest and largest radius, in radii
TURN_RATE = {"slow": 0.9, "fast": 2.6}  # radians per second
HOP_RATE = {"slow": 0.4, "fast": 1.0}  # hops per second
BLINK_SECONDS = {"slow": (2.0, 1.5), "fast": (0.75, 0.5)}  # period, and how much of it the shape is visible
NOISE_STD = 2.0  # of the camera noise, of 255
NUM_NOISE_PATTERNS = 4  # shown in turn


@dataclass(frozen=True)
class Event:
    """What one shape does in [start_seconds, end_seconds) of a video: keys of COLORS, SHAPES, MOTIONS and SPEEDS."""

    color: str
    shape: str
    motion: str
    speed: str
    start_seconds: float
    end_seconds: float


def _circle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.hypot(u, v) - 1.0


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) - 0.86


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(v - 0.6, 0.866 * np.abs(u) - 0.5 * v - 0.6)


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    fifth = 2 * np.pi / 5
    angle = np.abs((np.arctan2(u, -v) + fifth / 2) % fifth - fifth / 2)
    distance = np.hypot(u, v)
    along, across = distance * np.cos(angle), distance * np.sin(angle)
    # One edge runs from the tip (1.15, 0) to the notch between two tips.
    edge = np.array([0.5 * np.cos(fifth / 2) - 1.15, 0.5 * np.sin(fifth / 2)])
    edge /= np.linalg.norm(edge)
    return (along - 1.15) * edge[1] - across * edge[0]


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    u, v = np.abs(u), np.abs(v)
    return np.minimum(np.maximum(u - 1.05, v - 0.36), np.maximum(u - 0.36, v - 1.05))


def _ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(u, v) - 0.78) - 0.27


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    side, middle = 0.6, 0.6 / np.sqrt(2)  # a square on its tip with a half disc on each upper side
    v = v - 0.1
    tip = np.maximum(np.abs(u + v), np.abs(u - v)) / np.sqrt(2) - side
    return np.minimum(tip, np.hypot(np.abs(u) - middle, v + middle) - side)


def _moon(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.hypot(u, v) - 1.05, 0.85 - np.hypot(u - 0.5, v + 0.1))


# Signed distance to the outline (negative inside) of a shape of radius 1 around the origin.
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "heart": _heart,
    "moon": _moon,
}
ROUND_SHAPES = ("circle", "ring")  # their spinning is invisible


def draw_video(
    scene: str, events: Sequence[Event], *, fps: float, image_size: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the frames, uint8 (T, S, S, 3) RGB, of `events` one after the other in `scene`.

    Args:
        scene: a key of `SCENES`.
        events: without gaps, in order, the first at 0 s.
        fps: frames per second; frame t shows the instant t / fps.
        image_size: S, pixels.
        rng: draws everything that `events` and `scene` leave open.

    Raises:
        ValueError: an unknown motion.
    """
    num_frames = round(events[-1].end_seconds * fps)
    seconds = np.arange(num_frames) / fps
    background = _draw_background(scene, image_size, rng)
    frames = np.empty((num_frames, image_size, image_size, 3), np.uint8)
    for event in events:
        shown = np.flatnonzero((seconds >= event.start_seconds) & (seconds < event.end_seconds))
        elapsed = (seconds[shown] - event.start_seconds).astype(np.float32)
        ground = np.roll(background, rng.integers(image_size, size=2), axis=(0, 1)) * rng.uniform(0.94, 1.04)
        noise = rng.normal(0.0, NOISE_STD, (NUM_NOISE_PATTERNS, image_size, image_size, 1))
        pictures = np.clip(ground + noise, 0, 255).astype(np.uint8)[np.arange(len(shown)) % NUM_NOISE_PATTERNS]
        _paint_shape(pictures, event, elapsed, rng)
        frames[shown] = pictures
    return frames


def _paint_shape(pictures: np.ndarray, event: Event, elapsed: np.ndarray, rng: np.random.Generator) -> None:
    """Paint the event's shape into uint8 `pictures` (T, S, S, 3), which are `elapsed` seconds after its start."""
    image_size = pictures.shape[1]
    trajectory = _trajectory(event, elapsed, rng)
    x, y, radius, angle, visible = (values[:, None, None] for values in trajectory)
    color = np.array(COLORS[event.color], np.float32) * np.float32(rng.uniform(0.92, 1.04))
    # Restricted to the region that the shape ever covers, which halves the time a corpus takes.
    rows, columns = (_reach(center, radius, image_size) for center in (y, x))
    grid = ((np.arange(image_size) + 0.5) / image_size).astype(np.float32)
    across, along = (grid[None, None, columns] - x) / radius, (grid[None, rows, None] - y) / radius
    cosine, sine = np.cos(angle), np.sin(angle)
    distance = SHAPES[event.shape](cosine * across + sine * along, cosine * along - sine * across)
    distance = distance * radius * image_size  # pixels
    region = pictures[:, rows, columns]
    # The outline looks the same whatever the colors of shape and scene.
    for paint, reach in ((np.full(3, OUTLINE_LEVEL, np.float32), OUTLINE_RATIO * image_size), (color, 0)):
        opacity = np.clip(0.5 - distance + reach, 0, 1) * visible
        region[...] = np.clip(region + opacity[..., None] * (paint - region), 0, 255)


def _reach(center: np.ndarray, radius: np.ndarray, image_size: int) -> slice:
    """Return the pixels along one axis that a shape may touch in any frame."""
    reach = 1.3 * radius + OUTLINE_RATIO  # the corners of a turned square lie 1.22 radii out
    first, last = ((center - reach).min(), (center + reach).max())
    return slice(max(0, int(first * image_size)), min(image_size, int(last * image_size) + 2))


def _draw_background(scene: str, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a still float32 (S, S, 3) picture of the scene's ground."""
    y, x = np.mgrid[:image_size, :image_size].astype(np.float32) / image_size
    grain = rng.normal(0.0, 1.0, (image_size, image_size)).astype(np.float32)
    texture = {
        "snow": lambda: 26 * (grain > 1.9) + 2 * grain,
        "grass": lambda: 9 * grain * (0.6 + 0.4 * np.sin(60 * x)),
        "sand": lambda: 7 * grain + 5 * np.sin(14 * (x + 0.3 * np.sin(5 * y))),
        "water": lambda: 13 * np.sin(30 * y + 2 * np.sin(9 * x)) + 2 * grain,
        "wall": lambda: 30 * ((8 * y) % 1 < 0.16) + 30 * ((4 * x + 0.5 * np.floor(8 * y)) % 1 < 0.08) + 3 * grain,
        "street": lambda: 60 * ((np.abs(y - 0.5) < 0.03) & ((4 * x) % 1 < 0.5)) + 4 * grain,
    }[scene]()
    base = np.array(SCENES[scene], np.float32) * rng.uniform(0.92, 1.08)
    return base + np.asarray(texture, np.float32)[..., None]


def _trajectory(event: Event, elapsed: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Return x, y, radius (ratios), angle (radians) and opacity of a shape, float32 (T,) each, at `elapsed` seconds."""
    motion, speed = event.motion, event.speed
    one, phase = np.ones_like(elapsed), elapsed / (event.end_seconds - event.start_seconds)
    x, y = (one * rng.uniform(*PLACE_RANGE) for _ in range(2))
    radius = one * rng.uniform(*RADIUS_RANGE)
    angle = one * rng.uniform(-MAX_TILT, MAX_TILT)
    visible = one
    away = TRAVEL_RATIO[speed] * (2 * phase - 1)  # from one side to the other
    if motion in ("left", "right"):
        x = x + (away if motion == "right" else -away)
    elif motion in ("up", "down"):
        y = y + (away if motion == "down" else -away)
    elif motion in ("grow", "shrink"):
        smallest, largest = SIZE_RANGE[speed]
        radius = radius * (smallest + (largest - smallest) * (phase if motion == "grow" else 1 - phase))
    elif motion == "spin":
        angle = angle + TURN_RATE[speed] * elapsed
    elif motion == "bounce":
        y = y + 0.13 - 0.26 * np.abs(np.sin(np.pi * HOP_RATE[speed] * elapsed))
    elif motion == "blink":
        period, shown = BLINK_SECONDS[speed]
        visible = (elapsed % period < shown).astype(np.float32)
    else:
        raise ValueError(f"motion is {motion!r}; allowed are {', '.join(MOTIONS)}")
    return [values.astype(np.float32) for values in (x, y, radius, angle, visible)]
