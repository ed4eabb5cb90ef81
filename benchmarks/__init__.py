"""Measures persistq beside the drivers it stands on and the queues that people would take instead."""
