"""A trained model as one folder to take away: weights, record, card and ONNX files."""
