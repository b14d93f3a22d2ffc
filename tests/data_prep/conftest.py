"""The clips of test builds."""

import pytest

from tests.data_prep.builds import BROKEN


@pytest.fixture(scope="module")
def world(make_clip, tmp_path_factory):
    """A CSV file of 18 clips: 15 good ones, one of them without sound, and those of BROKEN."""
    folder = tmp_path_factory.mktemp("world")
    clips, rows = folder / "clips", []
    for number in range(15):
        tone_hz = None if number % 8 == 7 else 300.0 + 40 * number
        name = f"scene{number // 2:06d}"
        make_clip(
            clips / f"{name}_{number:06d}.mp4", seconds=1.2, width=64, height=48, tone_hz=tone_hz
        )
        rows.append(f'{name},{number},"dog, barking",{"test" if number // 2 == 0 else "train"}')
    (clips / "ccccccccccc_000001.mp4").write_bytes(b"no video at all" * 9)
    make_clip(clips / "ddddddddddd_000001.mp4", seconds=0.5)
    rows += [f"{youtube_id},1,cat,train" for youtube_id, _ in BROKEN]
    (folder / "vggsound.csv").write_text("\n".join(rows) + "\n")
    return folder
