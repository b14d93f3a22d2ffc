"""The picture at the top of README.md: rows of an evaluation's report, with labels.

    aiaic demo
    python benchmarks/picture_row.py outputs/demo/report.html --rows 2 5 --out demo.png

Takes the pictures that the report shows, scales them up, and writes which sound each was coloured
with below it. Prints one JSON object.
"""

import argparse
import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path

from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

HEADS = ("grey: all it sees", "without sound", "its own sound", "another sound", "truth")
SIDE, GAP, HEAD, FOOT, MARGIN = 136, 10, 26, 22, 12
COLORS = 192
HEARD = (3, 4)  # which pictures of a row were coloured with a sound
INK, SOFT, PAPER = "#1f2328", "#59636e", "#ffffff"


class Report(HTMLParser):
    """Rows of (picture, name of the sound or nothing)."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[tuple[Image.Image, str]]] = []
        self._bold = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "div" and values.get("class") == "row":
            self.rows.append([])
        elif tag == "img" and self._in_row:
            content = base64.b64decode(values["src"].partition("base64,")[2])
            self.rows[-1].append((Image.open(io.BytesIO(content)).convert("RGB"), ""))
        self._bold = tag == "b"

    def handle_data(self, data: str) -> None:
        if self._bold and self.rows and len(self.rows[-1]) in HEARD:
            self.rows[-1][-1] = (self.rows[-1][-1][0], data)
        self._bold = False

    @property
    def _in_row(self) -> bool:
        return bool(self.rows) and len(self.rows[-1]) < len(HEADS)


def draw(rows: list[list[tuple[Image.Image, str]]]) -> Image.Image:
    """A sheet with one line of heads, and the sound's name under each picture."""
    bold, plain = (
        ImageFont.truetype(
            font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans", weight=weight)),
            size,
        )
        for weight, size in (("bold", 12), ("regular", 12))
    )
    width = 2 * MARGIN + len(HEADS) * SIDE + (len(HEADS) - 1) * GAP
    height = MARGIN + HEAD + len(rows) * (SIDE + FOOT + GAP)
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, head in enumerate(HEADS):
        left = MARGIN + column * (SIDE + GAP)
        pen.text((left + SIDE / 2, MARGIN + HEAD / 2 - 4), head, INK, bold, anchor="mm")
        for number, row in enumerate(rows):
            picture, text = row[column]
            top = MARGIN + HEAD + number * (SIDE + FOOT + GAP)
            sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, top))
            note = f"\N{EIGHTH NOTE} {text}" if text else ""
            pen.text((left + SIDE / 2, top + SIDE + FOOT / 2), note, SOFT, plain, anchor="mm")
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="report.html of an evaluation")
    parser.add_argument("--rows", type=int, nargs="+", default=[0, 1], help="which of its rows")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    options = parser.parse_args()
    report = Report()
    report.feed(options.report.read_text(encoding="utf-8"))
    sheet = draw([report.rows[number] for number in options.rows])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    small = sheet.quantize(COLORS, Image.Quantize.MEDIANCUT, kmeans=8, dither=Image.Dither.NONE)
    small.save(options.out, optimize=True)
    print(json.dumps({"out": str(options.out), "bytes": options.out.stat().st_size}))


if __name__ == "__main__":
    main()
