"""An evaluation: what is evaluated, on which clips, and what is measured."""
