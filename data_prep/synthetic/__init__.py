"""The world with a known answer: short MP4 clips whose colour only their sound can tell.

``synthesize`` writes clips in VGGSound's file format in which classes ("siblings") share one grey
appearance and differ in colour and sound, and beside them the truth, which only evaluation
may read. Same clips and seed, same bytes, whatever the number of workers. No metric is computed
here.
"""

from data_prep.synthetic.kinds import HARD, KINDS, PLAIN, SoundClass, WorldKind
from data_prep.synthetic.publish import TRUTH_NAME, World, synthesize
from data_prep.synthetic.world import plan_world

__all__ = [
    "HARD",
    "KINDS",
    "PLAIN",
    "TRUTH_NAME",
    "SoundClass",
    "World",
    "WorldKind",
    "plan_world",
    "synthesize",
]
