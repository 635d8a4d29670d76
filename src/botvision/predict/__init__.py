"""Prediction and evaluation: weights to a predictor, images to results, results to files."""
