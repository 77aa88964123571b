"""Hyper-parameter searches on Ray Tune; the only home of ray."""
