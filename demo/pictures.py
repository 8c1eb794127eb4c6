"""Scores as HTML: bars, and a timeline that lights up. Texts are a visitor's, so every one is escaped."""

import base64
import html
import io

import numpy as np
import PIL.Image
import torch
from engine import Hit, Scored

# Colours and sizes come from the page's theme, so that the dark one works as well.
STYLE = """
:root {--quiet: #5a6476}
.dark {--quiet: #9ba7ba}
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


def draw_nothing_yet() -> str:
    """Returns what stands where scores will be."""
    return '<div class="card empty">Upload a video and press the button: scores appear here.</div>'


def draw_bars(title: str, note: str, names: list[str], values: list[float], shown: list[str]) -> str:
    """Returns a card with a bar per name, as long as its value compared with the largest; best first.

    Args:
        values: negative ones get no bar.
        shown: the values as they are to be read.
    """
    longest = max(*values, 1e-6) if len(values) > 1 else max(values[0], 1e-6)
    order = sorted(range(len(names)), key=lambda index: -values[index])
    rows = [
        f'<div class="row{" best" if rank == 0 else ""}"><div class="name">{html.escape(names[index])}</div>'
        f'<div class="track"><div class="fill" style="width:{100 * max(values[index], 0) / longest:.1f}%"></div></div>'
        f'<div class="value">{shown[index]}</div></div>'
        for rank, index in enumerate(order)
    ]
    return f'<div class="card"><h3>{title}</h3><p class="note">{note}</p><div class="bars">{"".join(rows)}</div></div>'


def draw_timeline(scored: Scored) -> str:
    """Returns a card with a frame per window, and for each text a strip of cells, brighter where it fits better."""
    shares = _spread(scored.windows)
    frames = "".join(
        f'<img src="{_data_address(frame)}" alt="" title="{_clock(start)}" onclick="{SEEK.format(start)}">'
        for frame, (start, _) in zip(scored.frames, scored.spans, strict=True)
    )
    lines = [f'<div class="line"><div></div><div class="cells">{frames}</div></div>']
    for text, row, cosines in zip(scored.texts, shares, scored.windows, strict=True):
        peak = int(row.argmax())
        cells = [
            f'<button class="{"peak" if index == peak else ""}" style="--heat:{0.03 + 0.97 * share**2:.2f}" '
            f'title="{_clock(start)} – {_clock(end)}: {cosine:.2f}" aria-label="{_clock(start)}, {cosine:.2f}" '
            f'onclick="{SEEK.format(start)}"></button>'
            for index, (share, cosine, (start, end)) in enumerate(
                zip(row.tolist(), cosines.tolist(), scored.spans, strict=True)
            )
        ]
        start, end = scored.spans[peak]
        lines.append(
            f'<div class="line"><div class="name">{html.escape(text)}<span class="peak-note">best at '
            f'{_clock(start)} – {_clock(end)}</span></div><div class="cells">{"".join(cells)}</div></div>'
        )
    end = scored.spans[-1][1]
    marks = "".join(f"<span>{_clock(end * quarter / 4)[:-2]}</span>" for quarter in range(5))
    lines.append(f'<div class="line"><div></div><div class="axis">{marks}</div></div>')
    return (
        '<div class="card"><h3>When it happens</h3><p class="note">The fuller the colour, the better the text fits '
        f'there. Click a moment to watch it.</p><div class="times">{"".join(lines)}</div></div>'
    )


def draw_hits(hits: list[Hit], address_of) -> str:
    """Returns a card with the videos found, best first, which play while the mouse is over them.

    Args:
        address_of: gives the address that a browser finds a file under.
    """
    figures = [
        f'<figure><video src="{html.escape(address_of(hit.path))}#t=0.1" preload="metadata" muted loop playsinline '
        'onmouseenter="this.play()" onmouseleave="this.pause()"></video>'
        f'<figcaption><span title="{html.escape(hit.path.name)}">{html.escape(hit.path.stem)}</span>'
        f'<span class="value">{hit.score:.2f}</span></figcaption></figure>'
        for hit in hits
    ]
    return f'<div class="hits">{"".join(figures)}</div>'


def _spread(cosines: torch.Tensor) -> torch.Tensor:
    """Returns the values stretched to 0 .. 1 over all of them; equal ones become 1."""
    low, high = cosines.min(), cosines.max()
    return torch.ones_like(cosines) if high - low < 1e-6 else (cosines - low) / (high - low)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:04.1f}"


def _data_address(frame: np.ndarray) -> str:
    """Returns a frame (H, W, 3) uint8 as an address that holds the picture itself."""
    buffer = io.BytesIO()
    image = PIL.Image.fromarray(frame)
    image.thumbnail((96, 96))
    image.save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
