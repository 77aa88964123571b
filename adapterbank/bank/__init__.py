"""A bank on disk: its configuration, registry, prepared data, and what follows both."""
