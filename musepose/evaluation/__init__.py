"""Metrics of videos against ground truth."""
