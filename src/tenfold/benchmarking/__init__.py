"""Benchmarks of inference and of training: each configuration in a process of its own, one table, one plot.

records.py knows the figures and their JSON.
"""
