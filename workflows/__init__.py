"""The workflow around the model: Ray, MLflow and the command line live here and nowhere else."""
