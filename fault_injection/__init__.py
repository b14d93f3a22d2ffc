"""Fault injection for builds and training runs, shared by tests and benchmarks."""
