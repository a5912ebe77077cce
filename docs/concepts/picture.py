"""What the pictures are drawn with: a sheet that shows well on light and on dark ground, and a scale."""

from __future__ import annotations

from html import escape

STYLE = """
svg { font: 12px system-ui, "Segoe UI", Roboto, sans-serif }
.ground { fill: #fff; stroke: #d5dce3 } .text { fill: #16202b } .muted { fill: #52606d }
.strong { font-weight: 600 } .ground-text { fill: #fff }
.axis { stroke: #8895a2 } .grid { stroke: #e3e8ed } .band { fill: #f1f4f7 } .dash { stroke-dasharray: 4 3 }
.main { stroke: #0b63c5 } .f-main { fill: #0b63c5 } .p-main { fill: #d3e4f8 }
.good { stroke: #146c43 } .f-good { fill: #146c43 }
.bad { stroke: #b3261e } .f-bad { fill: #b3261e } .p-bad { fill: #f7cdc9 }
.warn { stroke: #8a5300 } .f-warn { fill: #8a5300 } .p-warn { fill: #fae3b8 }
.p-good { fill: #d5ecdf } .half { fill-opacity: .75 } .line { fill: none; stroke-width: 1.8 }
@media (prefers-color-scheme: dark) {
.ground { fill: #18212a; stroke: #2e3a46 } .text { fill: #e6edf3 } .muted { fill: #9fb0c0 }
.ground-text { fill: #18212a }
.axis { stroke: #7c8b99 } .grid { stroke: #26313c } .band { fill: #1e2933 }
.main { stroke: #6cb6ff } .f-main { fill: #6cb6ff } .p-main { fill: #1d3b5c }
.good { stroke: #6fd39b } .f-good { fill: #6fd39b }
.bad { stroke: #ff9a90 } .f-bad { fill: #ff9a90 } .p-bad { fill: #57211d }
.warn { stroke: #f0b659 } .f-warn { fill: #f0b659 } .p-warn { fill: #4d3713 }
.p-good { fill: #173d2a }
}
""".strip()

WIDTH = 760


class Scale:
    """From what is measured to where it is drawn."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) * (self.end - self.start) / (self.high - self.low)


class Sheet:
    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self.parts: list[str] = []

    def _add(self, tag: str, classes: str, body: str | None = None, **attributes: float | str) -> None:
        told = " ".join(
            f'{name.replace("_", "-")}="{v if isinstance(v, str) else f"{v:.1f}".removesuffix(".0")}"'
            for name, v in attributes.items()
        )
        end = "/>" if body is None else f">{escape(body, quote=False)}</{tag}>"
        self.parts.append(f'<{tag} class="{classes}" {told}{end}')

    def line(self, classes: str, x1: float, y1: float, x2: float, y2: float) -> None:
        self._add("line", classes, x1=x1, y1=y1, x2=x2, y2=y2)

    def path(self, classes: str, points: list[tuple[float, float]]) -> None:
        self._add("polyline", f"line {classes}", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points))

    def box(self, classes: str, x1: float, y1: float, x2: float, y2: float, round_: float = 3) -> None:
        self._add("rect", classes, x=min(x1, x2), y=min(y1, y2), width=abs(x2 - x1), height=abs(y2 - y1), rx=round_)

    def dot(self, classes: str, x: float, y: float, r: float = 4) -> None:
        self._add("circle", classes, cx=x, cy=y, r=r)

    def flag(self, classes: str, x: float, y: float) -> None:
        """A mark that stands on a line: a row has left."""
        self._add("path", classes, d=f"M{x:.1f} {y:.1f} l-5 -9 h10 z")

    def text(self, classes: str, x: float, y: float, body: str, anchor: str = "start") -> None:
        self._add("text", classes, body, x=x, y=y, text_anchor=anchor)

    def arrow(self, classes: str, x1: float, y1: float, x2: float, y2: float) -> None:
        self._add("line", f"line {classes}", x1=x1, y1=y1, x2=x2, y2=y2, marker_end="url(#head)")

    def curve(self, classes: str, d: str) -> None:
        self._add("path", f"line {classes}", d=d, marker_end="url(#head)")

    def __str__(self) -> str:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" role="img">\n<title>{escape(self.title)}</title>\n<style>\n{STYLE}\n</style>\n'
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            'orient="auto-start-reverse"><path class="muted" d="M0 0 L10 5 L0 10 z"/></marker></defs>\n'
            f'<rect class="ground" x="0.5" y="0.5" width="{self.width - 1}" height="{self.height - 1}" rx="6"/>\n'
        )
        return head + "\n".join(self.parts) + "\n</svg>\n"
