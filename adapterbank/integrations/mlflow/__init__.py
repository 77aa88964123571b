"""MLflow: runs, the model registry that mirrors ours, and its address of our bytes."""
