"""Benchmarks: `python -m tests.bench` measures the engine side by side with a bare insert."""
