"""The commands of ``aiaic``: one module each, with a function ``run(options)``."""
