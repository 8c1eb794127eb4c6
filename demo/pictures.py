"""Scores as HTML: bars, a timeline, a gallery. Texts come from visitors, so all of them are escaped."""

import base64
import html
import io

import numpy as np
import PIL.Image
from engine import GalleryVideo, Scored

# Colors and sizes come from the page's theme, so that the dark one works as well.
STYLE = """
:root {--quiet: #5a6476; --wrong: #b42318}
.dark {--quiet: #9ba7ba; --wrong: #ff8a80}
.gradio-container {background: var(--body-background-fill)}
.gradio-container > main {max-width: 1160px !important; margin: 0 auto !important; padding: 20px 24px 56px !important}
.intro h1 {font-size: 34px; line-height: 1.15; font-weight: 700; letter-spacing: -.022em; margin: 8px 0 6px}
.intro p {font-size: 16px; line-height: 1.5; max-width: 68ch; color: var(--quiet); margin: 0 0 4px}
.limits p {font-size: 13px; color: var(--quiet); margin: 0}
.sides {display: grid !important; grid-template-columns: minmax(0, 5fr) minmax(0, 7fr); gap: 24px; align-items: start}
@media (max-width: 860px) {.sides {grid-template-columns: minmax(0, 1fr)}}

.card {padding: 20px 22px 22px; border: 1px solid var(--border-color-primary); border-radius: 14px;
  background: var(--block-background-fill)}
.card + .card {margin-top: 16px}
.card h3 {font-size: 16px; line-height: 1.3; font-weight: 650; margin: 0}
.card .note {font-size: 13.5px; line-height: 1.45; color: var(--quiet); margin: 3px 0 16px}
.card.empty {border-style: dashed; text-align: center; padding: 120px 24px; color: var(--quiet); font-size: 15px}
.card.wrong {border-color: var(--wrong); color: var(--wrong); font-size: 15px}

.bars {display: grid; grid-template-columns: minmax(90px, 34%) 1fr 40px; gap: 11px 14px; align-items: center}
.row {display: contents}
.name {font-size: 14.5px; line-height: 1.3; overflow-wrap: anywhere}
.track {height: 12px; border-radius: 6px; background: var(--border-color-primary)}
.fill {height: 100%; border-radius: 6px; background: var(--color-accent); opacity: .5}
.best .fill {opacity: 1}
.best .name, .best .value {font-weight: 650; color: var(--body-text-color)}
.value {font-size: 14px; text-align: right; font-variant-numeric: tabular-nums; color: var(--quiet)}

.line {display: grid; grid-template-columns: minmax(100px, 30%) 1fr; gap: 14px; align-items: center; margin: 7px 0}
.cells {display: grid; grid-auto-flow: column; grid-auto-columns: minmax(0, 1fr); gap: 2px}
.cells button {height: 30px; border: 0; padding: 0; border-radius: 4px; cursor: pointer; position: relative;
  background: color-mix(in srgb, var(--border-color-primary) 55%, transparent)}
.cells button::after {content: ""; position: absolute; inset: 0; border-radius: 4px; opacity: var(--heat);
  background: var(--color-accent)}
.cells .peak {outline: 2px solid var(--body-text-color); outline-offset: 1px; z-index: 1}
.cells button:hover, .cells button:focus-visible {outline: 2px solid var(--color-accent); outline-offset: 1px}
.cells img {width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 4px; margin: 0; cursor: pointer}
.axis {display: flex; justify-content: space-between; font-size: 12px; font-variant-numeric: tabular-nums;
  color: var(--quiet); margin-top: -3px}
.peak-note {display: block; font-size: 12px; color: var(--quiet); font-variant-numeric: tabular-nums}

.hits {display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 20px 18px; padding-top: 8px}
@media (max-width: 600px) {.hits {grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 14px 12px}
  .card {padding: 16px} .bars {grid-template-columns: minmax(80px, 44%) 1fr 36px}
  .line {grid-template-columns: minmax(0, 1fr); gap: 5px; margin: 12px 0} .cells img {height: 30px; aspect-ratio: auto}
  .peak-note {display: inline; margin-left: 8px}}
.hits figure {margin: 0}
.hits video {width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 12px; display: block; margin: 0;
  background: var(--border-color-primary)}
.hits figcaption {display: flex; justify-content: space-between; gap: 8px; font-size: 13.5px; padding: 7px 2px 0}
.hits figcaption span:first-child {overflow: hidden; text-overflow: ellipsis; white-space: nowrap}
"""

# A click on a moment plays the video from there.
SEEK = "const v=document.querySelector('#clip video');if(v){{v.currentTime={:.2f};v.play()}}"


def draw_empty() -> str:
    """Return the placeholder for scores."""
    return '<div class="card empty">Upload a video, or pick the example, and press the button.</div>'


def draw_error(message: str) -> str:
    """Return a card with an error."""
    return f'<div class="card wrong" role="alert">{html.escape(message)}</div>'


def draw_bars(title: str, note: str, names: list[str], values: list[float], shown: list[str]) -> str:
    """Return a card with a bar per name, best first; a value of 1 fills the track, and 0 or less leaves it empty.

    Args:
        shown: the values as printed.
    """
    order = sorted(range(len(names)), key=lambda index: -values[index])
    rows = [
        f'<div class="row{" best" if rank == 0 else ""}"><div class="name">{html.escape(names[index])}</div>'
        f'<div class="track"><div class="fill" style="width:{100 * min(max(values[index], 0), 1):.1f}%"></div></div>'
        f'<div class="value">{shown[index]}</div></div>'
        for rank, index in enumerate(order)
    ]
    return f'<div class="card"><h3>{title}</h3><p class="note">{note}</p><div class="bars">{"".join(rows)}</div></div>'


def draw_timeline(scored: Scored) -> str:
    """Return a card with a frame per window, and for each text a strip of cells, the fuller the larger the cosine."""
    frames = "".join(
        f'<img src="{_data_address(frame)}" alt="" title="{_clock(start)}" onclick="{SEEK.format(start)}">'
        for frame, (start, _) in zip(scored.frames, scored.spans, strict=True)
    )
    lines = [f'<div class="line"><div></div><div class="cells">{frames}</div></div>']
    for text, cosines in zip(scored.texts, scored.windows, strict=True):
        peak = int(cosines.argmax())
        cells = [
            f'<button class="{"peak" if index == peak else ""}" style="--heat:{min(max(cosine, 0.0), 1.0) ** 2:.2f}" '
            f'title="{_clock(start)} – {_clock(end)}: {cosine:.2f}" aria-label="{_clock(start)}, {cosine:.2f}" '
            f'onclick="{SEEK.format(start)}"></button>'
            for index, (cosine, (start, end)) in enumerate(zip(cosines.tolist(), scored.spans, strict=True))
        ]
        start, end = scored.spans[peak]
        note = f"best at {_clock(start)} – {_clock(end)}, {float(cosines[peak]):.2f}"
        lines.append(
            f'<div class="line"><div class="name">{html.escape(text)}<span class="peak-note">{note}</span></div>'
            f'<div class="cells">{"".join(cells)}</div></div>'
        )
    end = scored.spans[-1][1]
    marks = "".join(f"<span>{_clock(end * quarter / 4)[:-2]}</span>" for quarter in range(5))
    lines.append(f'<div class="line"><div></div><div class="axis">{marks}</div></div>')
    return (
        '<div class="card"><h3>When it happens</h3><p class="note">Full color is a cosine of 1, none is 0. '
        f'Click a moment to watch it.</p><div class="times">{"".join(lines)}</div></div>'
    )


def draw_gallery(videos: list[GalleryVideo], address_of, scores: list[float] | None = None) -> str:
    """Return the videos as players with a picture each, which is shown also where a browser cannot play the file.

    Args:
        address_of: function from a path to the address under which a browser finds the file.
        scores: a cosine per video.
    """
    notes = [""] * len(videos) if scores is None else [f"{score:.2f}" for score in scores]
    players = [
        f'<figure><video src="{html.escape(address_of(video.path))}" poster="{_data_address(video.frame, 320)}" '
        'preload="none" controls muted loop playsinline></video>'
        f'<figcaption><span title="{html.escape(video.path.name)}">{html.escape(video.path.stem)}</span>'
        f'<span class="value">{note}</span></figcaption></figure>'
        for video, note in zip(videos, notes, strict=True)
    ]
    return f'<div class="hits">{"".join(players)}</div>'


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:04.1f}"


def _data_address(frame: np.ndarray, size: int = 96) -> str:
    """Return a frame (H, W, 3) uint8 as a data URL of a JPEG of at most `size` pixels per side."""
    buffer = io.BytesIO()
    image = PIL.Image.fromarray(frame)
    image.thumbnail((size, size))
    image.save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
