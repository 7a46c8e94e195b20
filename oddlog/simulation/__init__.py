"""Believable traffic and attack scenarios with a label for every line; deterministic by seed."""
