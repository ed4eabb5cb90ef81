"""``python -m manager.manager.py``, as the seed document has it, finds its module here."""
