"""From pictures of people to aligned skeleton pictures."""
