"""The model artifact (graphs, baseline, card), calibration, explanation, and the model that scores."""
