"""Features = f(event, baseline, client state): their declaration, and their computation in batch and in stream."""
