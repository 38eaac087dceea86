"""Writes float_blocks.safetensors: blocks of Q4_0 and Q4_K and their numbers as gguf-py (0.19) has them.

    pip install gguf && python float_blocks.py

`q4_0` u8 [16, 18] and `q4_k` u8 [16, 144], of random bits with finite scales, and `q4_0.values` f32
[16, 32], `q4_k.values` f32 [16, 256]. `numbers` f32 [64, 32], normal, `q4_0.encoded` u8 [64, 18] those
in Q4_0. gguf-py has no Q2_0: `q2_0` u8 [16, 18] and `q2_0_g128` u8 [16, 34], with `.values`, are by its
rule, an f16 scale before four codes to a byte, the first lowest, each one more than the number.
"""

import json
import struct

import gguf
import numpy as np

rng = np.random.default_rng(11)
kinds = gguf.GGMLQuantizationType


def blocks(size, scales):
    out = rng.integers(0, 256, (16, size), dtype=np.uint8)
    for at in range(0, 2 * scales, 2):
        out[:, at : at + 2] = rng.normal(size=(16, 1)).astype("<f2").view(np.uint8)
    return out


def two_bits(of):
    scale = of[:, :2].copy().view("<f2").astype("<f4")
    codes = (of[:, 2:, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
    return (codes.reshape(len(of), -1).astype("<f4") - 1) * scale


q4_0, q4_k, q2_0, q2_0_g128 = blocks(18, 1), blocks(144, 2), blocks(18, 1), blocks(34, 1)
numbers = rng.normal(size=(64, 32)).astype("<f4")
parts = {
    "q4_0": q4_0,
    "q4_0.values": gguf.quants.dequantize(q4_0, kinds.Q4_0).astype("<f4"),
    "q4_k": q4_k,
    "q4_k.values": gguf.quants.dequantize(q4_k, kinds.Q4_K).astype("<f4"),
    "q2_0": q2_0,
    "q2_0.values": two_bits(q2_0),
    "q2_0_g128": q2_0_g128,
    "q2_0_g128.values": two_bits(q2_0_g128),
    "numbers": numbers,
    "q4_0.encoded": gguf.quants.quantize(numbers, kinds.Q4_0),
}
header, at = {}, 0
for name, array in parts.items():
    header[name] = {
        "dtype": {"uint8": "U8", "float32": "F32"}[array.dtype.name],
        "shape": list(array.shape),
        "data_offsets": [at, at + array.nbytes],
    }
    at += array.nbytes
header = json.dumps(header).encode()
header += b" " * (-len(header) % 8)
with open("float_blocks.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(header)) + header)
    for array in parts.values():
        f.write(array.tobytes())
