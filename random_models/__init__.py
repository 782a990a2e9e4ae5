"""Models with random weights, and a naive UNet, for tests and benchmarks."""
