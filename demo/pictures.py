"""Scores as HTML: bars, and a timeline that lights up. Texts are a visitor's, so every one is escaped."""

import html

import torch
from engine import Scored

STYLE = """
.bars, .times {display: grid; gap: 10px 14px; align-items: center; font-size: 15px; margin: 8px 0 20px}
.bars {grid-template-columns: minmax(120px, 30%) 1fr 52px}
.times {grid-template-columns: minmax(120px, 30%) 1fr}
.name {overflow-wrap: anywhere; line-height: 1.25}
.track {height: 18px; border-radius: 9px; background: var(--background-fill-secondary); overflow: hidden}
.fill {height: 100%; border-radius: 9px; background: linear-gradient(90deg, #4f46e5, #06b6d4)}
.value {text-align: right; font-variant-numeric: tabular-nums; opacity: .75}
.strip {display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; gap: 2px; height: 30px}
.strip div {border-radius: 4px; background: #f59e0b}
.axis {display: flex; justify-content: space-between; font-size: 12px; opacity: .65}
"""


def draw_bars(scored: Scored) -> str:
    """Returns a bar per text: its share among the texts' spread, and its cosine in figures; best first."""
    order = scored.whole.argsort(descending=True).tolist()
    shares = _spread(scored.whole)
    rows = [
        f'<div class="name">{html.escape(scored.texts[index])}</div>'
        f'<div class="track"><div class="fill" style="width:{8 + 92 * shares[index]:.0f}%"></div></div>'
        f'<div class="value">{scored.whole[index]:.2f}</div>'
        for index in order
    ]
    return f'<div class="bars">{"".join(rows)}</div>'


def draw_timeline(scored: Scored) -> str:
    """Returns a strip per text, a cell per window, brighter where the text fits better than elsewhere."""
    shares = _spread(scored.windows)
    rows = []
    for text, row, cosines in zip(scored.texts, shares, scored.windows, strict=True):
        cells = [
            f'<div style="opacity:{0.06 + 0.94 * share**1.5:.2f}" title="{start:.1f}-{end:.1f} s: {cosine:.2f}"></div>'
            for share, cosine, (start, end) in zip(row.tolist(), cosines.tolist(), scored.spans, strict=True)
        ]
        rows.append(f'<div class="name">{html.escape(text)}</div><div class="strip">{"".join(cells)}</div>')
    end = scored.spans[-1][1]
    axis = f'<div></div><div class="axis"><span>0 s</span><span>{end / 2:.1f} s</span><span>{end:.1f} s</span></div>'
    return f'<div class="times">{"".join(rows)}{axis}</div>'


def _spread(cosines: torch.Tensor) -> torch.Tensor:
    """Returns the values stretched to 0 .. 1 over all of them; equal ones become 1."""
    low, high = cosines.min(), cosines.max()
    return torch.ones_like(cosines) if high - low < 1e-6 else (cosines - low) / (high - low)
