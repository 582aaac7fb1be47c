"""Plots as SVG, readable on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tests.benchmarks.figures import Results, short

_WIDTH, _LEFT, _BAR, _GAP = 760, 210, 22, 12
_TOP = 64
_COLOURS = ("#8a8f98", "#4c8dd6", "#2fa37c", "#d99a2b", "#c7603f", "#8d6cc9")
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f } .head { font-weight: 600; font-size: 15px }
.soft { fill: #59636e; font-size: 12px } line { stroke: #8a8f98; stroke-opacity: .35 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .soft { fill: #9aa4af } }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of a plot: parts side by side, and what is written after them."""

    name: str
    parts: Sequence[float]
    label: str
    #: Of its only part; parts of others have the colour of their place.
    colour: int | None = None


def drawn(results: Results) -> dict[str, str]:
    return {"layers": _layers(results), "growth": _growth(results), "delays": _delays(results)}


def _layers(results: Results) -> str:
    layers = ("bare", "protocol", "steps", "session", "use-case", "reply")
    calls = {"me": "GET /user/me", "room": "GET /chatroom/:id (20)", "post": "POST …/message"}
    bars = [Bar("bare handler", [1.0], "1 f")]
    for call, title in calls.items():
        parts = [max(0.0, results.value(f"layers.{call}.{layer}")) for layer in layers]
        bars.append(Bar(title, parts, f"{short(sum(parts))} f"))
    names = ("bare handler", "protocol, headers", "steps", "token, session", "use case", "reply")
    return _plot("CPU of the API for a call, by layer, in f", bars, names)


def _growth(results: Results) -> str:
    of = results.value
    page, longest = of("growth.page"), of("growth.longest")
    rooms = {"room": page, "room-tenth": longest / 10, "room-longest": longest}
    bars = [
        Bar(f"page of {short(count)} messages", [of(f"growth.{name}.alone")], f"{results[f'growth.{name}.alone']}", 1)
        for name, count in rooms.items()
    ]
    others = short(of("growth.others"))
    for call, title in {
        "me": "GET /user/me",
        "list": "GET /chatroom/",
        "room": "GET /chatroom/:id",
        "post": "POST",
    }.items():
        for kind, colour, more in (("alone", 2, "alone"), ("others", 3, f"beside {others}")):
            figure = results[f"growth.{call}.{kind}"]
            bars.append(Bar(f"{title}, {more}", [figure.value], str(figure), colour))
    return _plot("CPU of API and Postgres as rooms and data grow, in f", bars)


def _delays(results: Results) -> str:
    names = {
        "delays.first": "first piece, idle",
        "delays.stored": "stored reply, idle",
        "streams.many": f"{short(results.value('streams.many.readers'))} readers × 5/s",
        "streams.most": f"{short(results.value('streams.most.readers'))} readers × 1/s",
    }
    bars = []
    for name, title in names.items():
        for percent, colour in (("p50", 1), ("p99", 3)):
            figure = results[f"{name}.{percent}"]
            bars.append(Bar(f"{title}, {percent}", [figure.value], str(figure), colour))
    return _plot("What the service adds to the model's time, in ms", bars)


def _plot(title: str, bars: Sequence[Bar], legend: Sequence[str] = ()) -> str:
    most = max(sum(bar.parts) for bar in bars) or 1.0
    scale = (_WIDTH - _LEFT - 90) / most
    height = _TOP + len(bars) * (_BAR + _GAP) + 8
    shapes = [f'<text class="head" x="0" y="20">{escape(title)}</text>']
    at = 0
    for place, name in enumerate(legend):
        shapes.append(f'<rect x="{at}" y="34" width="11" height="11" rx="2" fill="{_COLOURS[place]}"/>')
        shapes.append(f'<text class="soft" x="{at + 16}" y="44">{escape(name)}</text>')
        at += 34 + 7 * len(name)
    shapes.append(f'<line x1="{_LEFT}" x2="{_LEFT}" y1="{_TOP - 8}" y2="{height - 8}"/>')
    for row, bar in enumerate(bars):
        y, x = _TOP + row * (_BAR + _GAP), float(_LEFT)
        shapes.append(f'<text x="{_LEFT - 8}" y="{y + 16}" text-anchor="end">{escape(bar.name)}</text>')
        for place, part in enumerate(bar.parts):
            colour = _COLOURS[place if bar.colour is None else bar.colour]
            shapes.append(f'<rect x="{x:.1f}" y="{y}" width="{part * scale:.1f}" height="{_BAR}" fill="{colour}"/>')
            x += part * scale
        shapes.append(f'<text x="{x + 6:.1f}" y="{y + 16}">{escape(bar.label)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img"'
        f' aria-label="{escape(title)}">'
        f"\n<style>{_STYLE}</style>\n" + "\n".join(shapes) + "\n</svg>\n"
    )
