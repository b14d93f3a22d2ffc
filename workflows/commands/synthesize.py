"""``aiaic synthesize``: makes the synthetic world with a known answer."""

from pathlib import Path

from data_prep import synthetic
from workflows.options import Outcome, Synthesize


def run(options: Synthesize) -> Outcome:
    """Carry out the command."""
    kind = synthetic.KINDS[options.world]
    world = synthetic.synthesize(Path(options.out), options.clips, options.seed, kind=kind)
    values = {
        "out": options.out,
        "world": kind.name,
        "clips": world.clips,
        "annotations": str(world.annotations),
        "reused": world.reused,
    }
    unchanged = ", which existed already" if world.reused else ""
    return Outcome(values=values, text=f"{world.clips} clips in {options.out}{unchanged}")
