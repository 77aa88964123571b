"""Adaptation methods: one file each, found by its name (see :mod:`adapterbank.catalog`)."""
