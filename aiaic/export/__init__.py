"""Exports a trained model as one folder: weights, record, model card and ONNX files."""
