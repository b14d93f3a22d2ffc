"""Windows of a video's sound."""

import numpy as np
import pytest

from fault_injection.clips import write_clip
from tests.data_prep.media.test_sound import TONE, write_channels
from workflows.media.video_sound import SoundWindows


@pytest.mark.parametrize(
    ("channels", "loudness"), [([TONE, -TONE], 0.3), ([TONE, 0.5 * TONE], 0.225)]
)
def test_windows_of_channels_that_cancel_each_other_are_heard(tmp_path, channels, loudness):
    path = write_channels(tmp_path / "a.mka", channels)
    with path.open("rb") as file:
        windows = SoundWindows(file, 16000, 1.0)
        window = windows.at(1.0)
        windows.close()
    assert window is not None
    assert np.abs(window).max() == pytest.approx(loudness, rel=0.05)


def test_a_video_without_sound_has_no_windows(tmp_path):
    path = write_clip(tmp_path / "a.mp4", tone_hz=None)
    with path.open("rb") as file:
        windows = SoundWindows(file, 16000, 1.0)
        assert windows.at(1.0) is None
        assert windows.notes == ["no sound"]
        windows.close()
