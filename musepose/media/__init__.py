"""Reading and writing pictures, videos and sound."""
