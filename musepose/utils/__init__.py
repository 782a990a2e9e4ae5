"""Shared utilities: errors, files, options, prefetching, worker processes, devices, distributed runs."""
