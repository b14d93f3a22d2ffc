"""What every process of ``train_kills`` needs, loaded once before it is forked."""

import aiaic.training.loop  # noqa: F401
