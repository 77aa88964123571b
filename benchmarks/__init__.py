"""Measurements and checks that are run by hand: parity, speed, methods, start-up."""
