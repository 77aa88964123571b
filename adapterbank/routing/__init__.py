"""Which task an image belongs to: the record of each task, and the routers built from them."""
