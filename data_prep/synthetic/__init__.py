"""A synthetic world with a known answer: short MP4 clips whose colours only their sound reveals.

``synthesize`` writes clips in VGGSound's file format in which classes ("siblings") share one grey
appearance but differ in colour and sound, and beside them the ground truth, which only evaluation
may read. The bytes depend on the number of clips and the seed, not on the number of workers. No
metric is computed here.
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
