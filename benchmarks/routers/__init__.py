"""Routers by name: one file each. ``mahalanobis`` is what a bank uses."""
