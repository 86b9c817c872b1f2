"""Models for other programs. Every file that leaves was compared with what it is made from (``gate``)."""
