"""From files and generators to uint8 tensors: decoding, splits, storage and embedded tasks."""
