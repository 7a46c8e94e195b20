"""One detection algorithm a file. Every score: higher = more anomalous."""
