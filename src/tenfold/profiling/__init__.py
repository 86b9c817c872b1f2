"""Where the time of training and of prediction goes: one page, a Chrome trace, JSON.

training.py takes an engine's steps and lets it record some (``engines/recording.py``), prediction.py times a model's
parts and asks its runtime about the nodes, split.py and kinds.py do the arithmetic, advice.py says what it means,
page.py and strip.py draw it, work.py leaves the folder.
"""
