"""Believable traffic and attack scenarios with a label for every line; deterministic by seed."""

from oddlog.simulation.attacks import SCENARIOS, Scenario
from oddlog.simulation.planting import plant, planted_of
from oddlog.simulation.traffic import Simulated, simulate

__all__ = ["SCENARIOS", "Scenario", "Simulated", "plant", "planted_of", "simulate"]
