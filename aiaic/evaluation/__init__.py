"""Evaluation: which sound each clip gets, how results are scored, and what follows.

``passes`` carries out an evaluation and is where to begin reading; ``figures`` turns its scores
into the figures of a model.
"""
