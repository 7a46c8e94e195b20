"""Features = f(event, baseline, client state): declared once, computed in batch and in stream."""
