"""The three stages: what each starts from, what it trains, and its loss.

A stage is a module around the whole model. The loop sees stages only through
:class:`aiaic.stages.base.Stage`; :mod:`aiaic.training.build_stage` makes one by number.
"""
