"""The puppet world: characters that our own code draws, with their true keypoints."""
