"""BlazePose, MediaPipe's networks for body, hands and face, run by LiteRT. MediaPipe itself is not needed."""
