"""The bundle: what training leaves and everything else takes. ``store`` writes and opens it."""
