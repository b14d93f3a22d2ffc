"""The world with a known answer: short MP4 clips whose colour only their sound can tell.

``synthesize`` writes clips in VGGSound's file format in which two classes ("siblings") share one
grey appearance and differ in colour and sound, and beside them the truth, which only evaluation
may read. Same clips and seed, same bytes, whatever the number of workers. No metric is computed
here.
"""

from data_prep.synthetic.publish import TRUTH_NAME, World, synthesize
from data_prep.synthetic.world import CLASSES, SoundClass, plan_world, siblings

__all__ = [
    "CLASSES",
    "TRUTH_NAME",
    "SoundClass",
    "World",
    "plan_world",
    "siblings",
    "synthesize",
]
