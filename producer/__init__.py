"""The producer process."""
