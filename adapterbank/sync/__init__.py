"""The registry against its mirrors: Git, DVC, MLflow and remotes."""
