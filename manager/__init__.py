"""The full-screen window for a terminal."""
