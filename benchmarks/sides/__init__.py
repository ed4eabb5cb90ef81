"""One script for each contestant."""
