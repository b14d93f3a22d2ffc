"""Faults to inject into builds and trainings, and what tests and benchmarks inject them into."""
