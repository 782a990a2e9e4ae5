"""What the training scripts do."""
