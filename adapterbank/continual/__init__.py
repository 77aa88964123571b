"""A bank's life: the stages that `dvc repro` runs, and the release that judges new versions."""
