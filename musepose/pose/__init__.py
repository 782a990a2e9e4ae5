"""Pose detection, alignment and drawing: from pictures of people to an aligned pose video."""
