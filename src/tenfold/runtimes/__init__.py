"""Runtimes: a model and a device in, probabilities out. One module a runtime, each with ``open(source)``."""
