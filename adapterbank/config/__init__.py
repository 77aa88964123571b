"""A bank's configuration, `pipelines/params.yaml`, one section a module."""
