"""Colouring pictures and videos with a trained model."""

from aiaic.inference.colorizer import Colorized, Colorizer

__all__ = ["Colorized", "Colorizer"]
