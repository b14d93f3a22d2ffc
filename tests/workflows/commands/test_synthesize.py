"""``aiaic synthesize``: which kind of world it makes."""

from typing import get_args, get_type_hints

import pyarrow.parquet as pq

from data_prep.synthetic import KINDS
from workflows.commands import synthesize
from workflows.options import Synthesize


def test_the_command_makes_the_world_that_is_asked_for(tmp_path):
    found = synthesize.run(Synthesize(out=str(tmp_path / "world"), clips=1, world="hard"))
    assert (found.values["world"], found.values["clips"]) == ("hard", 1)
    assert pq.read_schema(tmp_path / "world" / "truth.parquet").metadata[b"kind"] == b"hard"


def test_the_command_offers_every_kind():
    assert set(get_args(get_type_hints(Synthesize)["world"])) == set(KINDS)
