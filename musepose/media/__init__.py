"""Pictures, videos and sound in and out."""
