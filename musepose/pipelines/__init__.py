"""The sampling pipeline: a reference picture and aligned poses → a video."""
