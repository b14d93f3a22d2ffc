"""The report as HTML, and the plain-text tables."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from workflows.report import evaluation_page, tables
from workflows.report.examples import Example, SoundResult
from workflows.report.extremes import ExtremeClip

ROW = {
    "psnr": 21.5, "mse_ab": 0.01, "ssim": 0.9, "colorfulness": 30.0, "colorfulness_abs": 31.0,
    "colorfulness_difference": 2.0, "n": 8,
}  # fmt: skip
HOSTILE = "<script>alert('x')</script>"


def result(**changes):
    values = {
        "protocol": {
            "size": 96, "crop": "centre", "split": "test", "n": 8,
            "weights": {"stage": 3, "step": 10, "recipe": "compact", "model_sha256": "ab" * 32},
        },
        "conditions": {"matched": ROW | {"relevance": 0.8}, "missing": ROW},
        "bounds": {"without_sound": {"psnr": 20.0, "mse_ab": 0.02, "n": 8}},
        "guidance_gain_db": 4.2,
        "harm_db": -0.25,
        "relevance": {"matched": {"mean": 0.8, "counts": [0, 8]}},
        "relevance_bins": [0.0, 0.5, 1.0],
        "ab_distance": {"matched_missing": 12.0},
        "absent": {"lpips": "no weights are given"},
        "seconds": {"evaluate": 3.0},
        "versions": {"torch": "2"},
    }  # fmt: skip
    return values | changes


def example(other: bool = True, label: str = "blue_sea") -> Example:
    picture = np.full((24, 24, 3), 90, np.uint8)
    sound = SoundResult(rgb=picture, relevance=0.75, wav=b"RIFF", label=label)
    return Example(
        key="a", label=label, grey=picture, without_sound=picture, own=sound,
        other=sound if other else None, truth=picture,
    )  # fmt: skip


STAGES = {1: {"curves": [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5, "validation_loss": 1}]}}


class Tags(HTMLParser):
    """Checks that every tag is closed."""

    VOID = frozenset({"meta", "img", "br", "link", "path", "use", "input"})

    def __init__(self):
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        pass


@pytest.mark.parametrize("rows", [[], [example()], [example(other=False)]])
@pytest.mark.parametrize("bounds", [True, False])
def test_all_tags_are_closed(rows, bounds):
    values = result() if bounds else result(bounds={})
    parser = Tags()
    parser.feed(evaluation_page.render(values, rows, STAGES))
    assert parser.open == []


def test_a_page_without_optional_metrics():
    values = result(conditions={"missing": ROW}, ab_distance={}, absent={}, bounds={})
    for name in ("relevance", "guidance_gain_db", "harm_db"):
        del values[name]
    html = evaluation_page.render(values, [], {1: {"curves": []}})
    assert "<h2>Training" not in html
    assert "its audio encoder is not trained" in html


def test_values_from_files_are_escaped():
    values = result(absent={"swapped": HOSTILE})
    values["protocol"]["split"] = HOSTILE
    html = evaluation_page.render(values, [example(label=HOSTILE)], STAGES)
    assert HOSTILE not in html
    assert html.count("&lt;script&gt;") >= 4


def test_charts_use_the_text_colour_of_the_page():
    html = evaluation_page.render(result(), [example()], STAGES)
    assert "currentColor" in html
    assert "#010203" not in html
    assert "prefers-color-scheme: dark" in html


def extreme(**changes):
    picture = np.full((24, 24, 3), 90, np.uint8)
    values = {
        "key": "a", "label": "blue_sea", "grey": picture, "without_sound": picture, "own": picture,
        "truth": picture, "psnr_missing": 25.0, "psnr_matched": 22.75,
    }  # fmt: skip
    return ExtremeClip(**(values | changes))


def test_extremes_are_shown_with_their_gain():
    html = evaluation_page.render(
        result(), [], STAGES, {"best": [extreme(psnr_matched=30.0)], "worst": [extreme()]}
    )
    assert html.count('<div class="four">') == 2
    assert "Lowest PSNR" not in html
    assert "(+5.0 dB)" in html
    assert "25.0 dB without sound, 22.8 dB with its own (\N{MINUS SIGN}2.2 dB)" in html
    hostile = evaluation_page.render(
        result(), [], STAGES, {"best": [extreme(key=HOSTILE, label=HOSTILE)]}
    )
    assert HOSTILE not in hostile
    parser = Tags()
    parser.feed(hostile)
    assert parser.open == []


def test_intervals_are_beside_their_metrics():
    intervals = {
        "level": 0.95, "resamples": 1000, "videos": 7,
        "psnr": {"matched": {"low": 21.2, "high": 21.84}},
        "guidance_gain_db": {"low": -0.5, "high": 8.9},
    }  # fmt: skip
    values = result(intervals=intervals)
    html = evaluation_page.render(values, [], STAGES)
    assert "21.50<small>(21.20 to 21.84)</small>" in html
    assert "4.200 (\N{MINUS SIGN}0.500 to 8.900)" in html
    assert "95% confidence interval, bootstrap over 7 videos" in html
    text = tables.evaluation(values)
    assert re.search(r"matched +21\.50 \(21\.20 to 21\.84\) ", text)
    assert "4.200 (-0.500 to 8.900)" in text
    assert "bootstrap over 7 videos" in text


def test_only_the_two_ends_of_many_labels_are_shown():
    def labels(count):
        return {
            f"label_{n:02d}": {
                "n": n, "psnr_matched": 20.0, "psnr_missing": 20.0 - n, "guidance_gain_db": n - 5.0
            }
            for n in range(count)
        }  # fmt: skip

    html = evaluation_page.render(result(labels=labels(30)), [], STAGES)
    assert [f"label {n:02d}" in html for n in (0, 5, 6, 23, 24, 29)] == [
        True, True, False, False, True, True
    ]  # fmt: skip
    assert html.index("label 29") < html.index("label 24") < html.index("label 00")
    assert "6 labels with the largest gain" in html
    few = evaluation_page.render(result(labels=labels(4)), [], STAGES)
    assert "All labels" in few
    assert HOSTILE not in evaluation_page.render(
        result(labels={HOSTILE: labels(1)["label_00"], "b": labels(1)["label_00"]}), [], STAGES
    )


def test_notes_are_shown():
    values = result(notes={"fid": "too few pictures"})
    assert "FID: too few pictures." in evaluation_page.render(values, [], STAGES)
    assert "note: fid: too few pictures" in tables.evaluation(values)


def test_negative_values_and_large_pictures():
    large = np.zeros((200, 300, 3), np.uint8)
    row = example()
    html = evaluation_page.render(result(), [Example(**(vars(row) | {"truth": large}))], STAGES)
    assert "\N{MINUS SIGN}0.25 dB" in html
    assert html.count("data:image/jpeg;base64,") == 1


def test_the_same_result_gives_the_same_page():
    assert evaluation_page.render(result(), [example()], STAGES) == evaluation_page.render(
        result(), [example()], STAGES
    )


def test_a_table_is_aligned():
    text = tables.table("condition", {"matched": ROW | {"relevance": 0.8}, "missing": ROW})
    lines = text.splitlines()
    assert lines[0].split()[:2] == ["condition", "PSNR"]
    assert re.match(r"matched\s+21\.50\s+0\.900\s+0\.01000\s+30\.0\s+2\.0\s+0\.80\s+8$", lines[1])
    assert lines[2].split()[-2:] == ["-", "8"]
    assert len(lines[1]) == len(lines[2]) == len(lines[0])


def test_the_text_of_an_evaluation():
    text = tables.evaluation(result(retrieval={"r_at_1": 0.5, "r_at_5": 0.75, "median_rank": 2.0}))
    assert "bound without sound" in text
    assert "4.200" in text
    assert "0.500, 0.750, 2.000" in text
    assert "not measured: lpips: no weights are given" in text
