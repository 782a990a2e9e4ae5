"""Downloads the published weights."""
