"""Detectors: each finds everybody in pictures and videos, with 133 whole-body keypoints."""
