"""The picture of the README is drawn from the report as it is now."""

import numpy as np

from benchmarks import picture_row
from tests.workflows.report.test_evaluation_page import STAGES, example, result
from workflows.report import evaluation_page


def test_pictures_and_sounds_are_found_in_the_report() -> None:
    page = evaluation_page.render(result(), [example(), example(label="golden_field")], STAGES)
    report = picture_row.Report()
    report.feed(page)
    names = [[text for _, text in row] for row in report.rows]
    assert names == [
        ["", "", "blue sea", "blue sea", ""],
        ["", "", "golden field", "golden field", ""],
    ]
    sheet = np.asarray(picture_row.draw(report.rows))
    assert (sheet == 90).all(-1).sum() == 10 * picture_row.SIDE**2
