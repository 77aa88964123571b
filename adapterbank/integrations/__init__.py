"""MLflow, DVC and Git: the one place that talks to them, so predicting never has to."""
