"""Raw input to unit vector at serving time: preprocessing and ONNX Runtime, no torch."""

from encoder.encoder import Encoder
from encoder.inputs.preprocessing import InputLimits, RawInput, RefusedInput

__all__ = ["Encoder", "InputLimits", "RawInput", "RefusedInput"]
