"""Prediction: a ready predictor from a weights file, result files and attention maps."""

from botvision.predict.predictor import Predictor, load

__all__ = ["Predictor", "load"]
