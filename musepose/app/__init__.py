"""The page: alignment and sampling in a browser, by the functions that the scripts call."""
