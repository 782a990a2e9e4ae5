"""Pose detectors behind one interface."""
