"""A trained network as ONNX."""
