"""Evaluation: chooses the sound of each clip, scores the results, and summarizes the scores.

Start reading at :mod:`aiaic.evaluation.evaluator`, which runs an evaluation;
:mod:`aiaic.evaluation.summary` turns its scores into the metrics of a model.
"""
