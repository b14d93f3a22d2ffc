"""Searches for hyperparameters: the space, the draws, the record of trials. Knows no Ray."""
