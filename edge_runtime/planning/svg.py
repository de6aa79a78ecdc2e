"""A plot of stacked bars, written by hand: a device has no plotting library, and needs none for this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

COLOURS = ("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#9c755f")
"""Tableau's ten, told apart by most colour-blind people too."""
_WIDTH, _LEFT, _BAR, _GAP = 860, 190, 34, 26


def stacked_bars(title: str, unit: str, bars: Sequence[tuple[str, str, Mapping[str, float]]]) -> str:
    """One bar a row: (name, note behind the bar, values by part). Every part has the same colour in all bars."""
    parts = list(dict.fromkeys(part for _, _, values in bars for part in values))
    scale = (_WIDTH - _LEFT - 230) / max(1e-12, *(sum(values.values()) for _, _, values in bars))
    height = 90 + len(bars) * (_BAR + _GAP) + 22 * ((len(parts) + 3) // 4)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="16" y="28" font-size="17">{escape(title)}</text>',
    ]
    for row, (name, note, values) in enumerate(bars):
        y, x = 50 + row * (_BAR + _GAP), float(_LEFT)
        out.append(f'<text x="{_LEFT - 10}" y="{y + 22}" text-anchor="end">{escape(name)}</text>')
        for part, value in values.items():
            width = value * scale
            label = escape(f"{part}: {value:.3g} {unit}")
            colour = COLOURS[parts.index(part) % len(COLOURS)]
            out.append(
                f'<rect x="{x:.2f}" y="{y}" width="{width:.2f}" height="{_BAR}" fill="{colour}">'
                f"<title>{label}</title></rect>"
            )
            x += width
        out.append(f'<text x="{x + 8:.2f}" y="{y + 22}">{escape(note)}</text>')
    base = 60 + len(bars) * (_BAR + _GAP)
    for index, part in enumerate(parts):
        x, y = 16 + (index % 4) * 205, base + 22 * (index // 4)
        out.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{COLOURS[index % len(COLOURS)]}"/>')
        out.append(f'<text x="{x + 18}" y="{y + 11}">{escape(part)}</text>')
    return "\n".join([*out, "</svg>", ""])
