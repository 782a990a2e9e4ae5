"""Inference of test_stage_2.py: options, test cases, loading, memory estimate, runners."""
