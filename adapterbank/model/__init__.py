"""The forward: of one adapter, of rows of many, and as the paper draws it."""
