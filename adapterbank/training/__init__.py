"""Training an adapter on a frozen backbone: one loop for every method, named recipes."""
