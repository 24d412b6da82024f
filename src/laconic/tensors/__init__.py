"""Streams: tensors from and to safetensors folders, block by block."""
