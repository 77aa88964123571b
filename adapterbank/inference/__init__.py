"""Serving: packed adapters, the canary that proves them, and the predictor."""
