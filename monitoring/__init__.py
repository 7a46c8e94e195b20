"""Drift between log batches, judged against the reference that travels with the champion."""
