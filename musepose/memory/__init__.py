"""Memory plans, and offloading to the CPU."""
