"""The command lines: one parser a command, and what entry points share."""
