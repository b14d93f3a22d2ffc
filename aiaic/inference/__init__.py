"""Colorization of pictures and video frames by a trained model."""

from aiaic.inference.colorizer import Colorized, Colorizer

__all__ = ["Colorized", "Colorizer"]
