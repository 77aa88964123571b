"""A bank on one page of HTML."""
