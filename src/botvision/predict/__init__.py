"""Prediction: a ready predictor from a weights file, result files and attention maps."""

from botvision.predict.class_predictor import ClassPredictor
from botvision.predict.loading import load
from botvision.predict.predictor import Predictor

__all__ = ["ClassPredictor", "Predictor", "load"]
