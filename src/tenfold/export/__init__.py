"""Models for other programs. Every file that leaves was compared with what it is made from (``gate``).

formats.py      which formats there are, what each needs, and how far its answers may be off
artifact.py     what an exported artifact looks like on disk; opening one again
job.py          ``tenfold export``: one format after another, each written and reopened in processes of their own
gate.py         how far answers are from those expected, and whether that is near enough
onnx.py, fp16.py, int8.py …   one module a format: ``write(source, folder)``
"""
