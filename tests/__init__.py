"""A package, so that none of this name that a library installs is taken for it."""
