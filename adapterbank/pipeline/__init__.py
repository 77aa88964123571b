"""The stages that `dvc repro` runs, one module each."""
