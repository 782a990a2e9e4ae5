"""The sampling: from a picture and aligned poses to a video."""
