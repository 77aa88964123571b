"""Which task an image belongs to. So far: the immutable record that routers are built from."""
