"""Frozen vision backbones: found by URI, run block by block, known by a content fingerprint."""
