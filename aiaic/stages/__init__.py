"""The three stages: what each one trains, and its losses.

A stage is a module around the whole model. The loop knows stages only as
:class:`aiaic.stages.base.Stage`; :mod:`aiaic.training.build_stage` builds one by number.
"""
