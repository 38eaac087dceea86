"""Writes iq2_s.safetensors: IQ2_S blocks and their numbers as gguf-py (0.19) has them.

    pip install gguf && python iq2_s.py

`blocks` u8 [34, 82], of random bits with finite scales; the first 32 hold each of the 1024 grid
entries once. `values` f32 [34, 256].
"""

import json
import struct

import gguf
import numpy as np

rng = np.random.default_rng(7)
blocks = rng.integers(0, 256, (34, 82), dtype=np.uint8)
entries = rng.permutation(1024).reshape(32, 32)
blocks[:32, 2:34] = entries & 0xFF
high = (entries >> 8).reshape(32, 8, 4)
blocks[:32, 66:74] = high[..., 0] | high[..., 1] << 2 | high[..., 2] << 4 | high[..., 3] << 6
blocks[:, :2] = rng.normal(size=(34, 1)).astype("<f2").view(np.uint8)
values = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.IQ2_S).astype("<f4")

parts = [("blocks", "U8", blocks), ("values", "F32", values)]
header, at = {}, 0
for name, dtype, array in parts:
    header[name] = {
        "dtype": dtype,
        "shape": list(array.shape),
        "data_offsets": [at, at + array.nbytes],
    }
    at += array.nbytes
header = json.dumps(header).encode()
header += b" " * (-len(header) % 8)
with open("iq2_s.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(header)) + header)
    for _, _, array in parts:
        f.write(array.tobytes())
