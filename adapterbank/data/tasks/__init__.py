"""Embedded tasks, one a file: real images or rendered ones, from installed packages alone.

A module here is a task, under its own name, because its file is here. Each has ``CLASSES``,
``DESCRIPTION``, ``SIZES`` (how many images each split has at most) and
``build(split, count, random)``, which returns (count, h, w, 3) uint8 images and (count,) int64
labels, balanced over the classes. No image is in two splits, whatever the seeds.
"""
