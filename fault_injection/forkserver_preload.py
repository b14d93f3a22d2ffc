"""Imports that all processes of ``train_kills`` share, loaded once before they are forked."""

import aiaic.training.loop  # noqa: F401
