"""Folded stacks as a flame graph: one SVG that any browser shows, a frame's name and share where the pointer rests.

┌ Session.step ┬ Pacer.tick ┐      width: share of the samples; below: who called
├ Runner.run ──┴────────────┤      red: the product; blue: libraries; alphabetical, so two graphs compare
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

WIDTH, ROW, LETTER = 1600, 17, 6.6
"""Pixels: of the image, of a frame's height, of a letter at 11 px."""
NARROWEST = 1.0
"""Pixels: a thousandth of the samples is not drawn any more."""
OURS = ("server/", "providers/", "audio_native/")


@dataclass(slots=True)
class Node:
    """One function in one place of the stack, with all that it called."""

    samples: int = 0
    called: dict[str, Node] = field(default_factory=dict)

    @property
    def height(self) -> int:
        return 1 + max((one.height for one in self.called.values()), default=0)


def tree(lines: Iterable[str]) -> Node:
    """The root of all stacks. Raises ValueError: a line is no folded stack."""
    root = Node()
    for line in lines:
        stack, _, number = line.rpartition(" ")
        samples, node = int(number), root
        root.samples += samples
        for name in stack.split(";"):
            node = node.called.setdefault(name, Node())
            node.samples += samples
    return root


def svg(lines: Iterable[str], title: str) -> str:
    """The image as text. Raises ValueError: a line is no folded stack."""
    root = tree(lines)
    height = (root.height + 2) * ROW
    said = f"{escape(title)}: {root.samples} samples"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="monospace" '
        f'font-size="11">',
        f'<rect width="100%" height="100%" fill="#fdfdfa"/><text x="6" y="{ROW - 4}">{said}</text>',
    ]
    _draw(root, 0.0, height - 2 * ROW, WIDTH / max(1, root.samples), root.samples, parts)
    return "\n".join([*parts, "</svg>", ""])


def _draw(node: Node, x: float, y: int, scale: float, total: int, parts: list[str]) -> None:
    """Everything that `node` called, from `x` on at height `y`, and upwards what those called."""
    for name, one in sorted(node.called.items()):
        width = one.samples * scale
        if width >= NARROWEST:
            parts.append(_frame(name, x, y, width, one.samples / total))
            _draw(one, x, y - ROW, scale, total, parts)
        x += width


def _frame(name: str, x: float, y: int, width: float, share: float) -> str:
    function, _, place = name.partition("@")
    shade = sum(function.encode()) % 40
    red, green, blue = (240, 120 + shade, 70 + shade) if place.startswith(OURS) else (150 + shade, 180 + shade, 225)
    letters = int((width - 4) / LETTER)
    text = function if len(function) <= letters else function[: max(0, letters - 1)] + "…" if letters > 2 else ""
    label = f'<text x="{x + 2:.1f}" y="{y + ROW - 5}">{escape(text)}</text>' if text else ""
    box = f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 1}" fill="rgb({red},{green},{blue})"'
    return f"<g><title>{escape(function)} ({escape(place)}) {share:.1%}</title><rect {box}/>{label}</g>"
