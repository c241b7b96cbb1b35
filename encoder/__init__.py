"""Raw input to unit vector at serving time: preprocessing and ONNX Runtime, no torch."""

from encoder.encoder import Encoder
from encoder.preprocessing import Preprocessing

__all__ = ["Encoder", "Preprocessing"]
