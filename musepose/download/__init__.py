"""Fetching the published weights."""
