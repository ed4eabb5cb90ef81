"""All SQL for the shared database."""
