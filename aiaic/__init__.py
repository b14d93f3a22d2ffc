"""Audio-infused automatic image colorization: batches -> stages -> checkpoints -> results.

Plain PyTorch: nothing here knows Ray, an object store or MLflow.
"""
