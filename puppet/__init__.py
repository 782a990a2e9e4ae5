"""The puppet world: rendered cartoon characters with ground-truth keypoints, for training, evaluation and the demo."""
