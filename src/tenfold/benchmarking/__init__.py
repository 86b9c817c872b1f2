"""Benchmarks of inference and of training: each configuration in a process of its own, one table, one plot.

records.py knows the figures and their JSON, targets.py what can be measured, child.py and worker.py how a process of a
configuration is run and what it does (opening.py, pictures.py, cards.py), work.py the order and the folder, best.py
which is the best for what, plot.py the picture, sides.py several machines beside each other.
"""
