"""What test_stage_2.py does: test cases, loading, memory estimate, running."""
