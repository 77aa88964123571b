"""Judge new versions and move aliases."""
