"""From stored events to a promoted model: dataset, fit, evaluate, threshold, gates, promote."""
