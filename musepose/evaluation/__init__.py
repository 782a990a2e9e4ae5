"""How close a video is to the true one."""
