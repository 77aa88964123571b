"""Whether the images of a task have changed since it was trained."""
