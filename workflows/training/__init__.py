"""A job of several stages, in this process or in each worker of a cluster."""
