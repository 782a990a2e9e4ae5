"""Pose detectors, all with the interface of base.py."""
