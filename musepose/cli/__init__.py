"""Command lines: one parser for each command, and the shared entry point."""
