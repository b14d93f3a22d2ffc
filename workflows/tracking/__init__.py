"""MLflow: runs, parameters, metrics and artifacts."""
