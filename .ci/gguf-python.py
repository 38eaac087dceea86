"""Holds conversions of the demo model against the Python package `gguf`.

Usage: gguf-python.py BITNET FOLDER

Both ways: what `bitnet convert` writes is read and widened by the package, and what the package quantises and
writes is compared by `bitnet diff`. The weights to hold both against are those of a Hugging Face folder,
unpacked here.
"""

import json
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

bitnet, folder = sys.argv[1], Path(sys.argv[2])
demo = Path(__file__).parent.parent / "models/bitnet-tales-i2_s.gguf"


def convert(to, *options):
    path = folder / "-".join([to, *options])
    subprocess.run([bitnet, "convert", demo, path, "--to", to, *options], check=True, stderr=subprocess.DEVNULL)
    return path


def unpacked(packed, scale):
    """Four rows of codes are in one of bytes, a quarter of the matrix apart."""
    codes = np.concatenate([(packed >> shift) & 3 for shift in (0, 2, 4, 6)])
    return (codes.astype(np.float32) - 1) * scale


hf = convert("hf")
stored = load_file(hf / "model.safetensors")
report = subprocess.run([bitnet, "inspect", hf, "--tensors", "--json"], check=True, capture_output=True)
expected = {}
for tensor in json.loads(report.stdout)["tensors"]:
    of = tensor["stored"]
    if stored[of].dtype == np.uint8:
        expected[tensor["name"]] = unpacked(stored[of], stored[of + "_scale"])
    elif not of.endswith("_scale"):
        expected[tensor["name"]] = stored[of]

types = gguf.GGMLQuantizationType
for to, embed in [("tq1_0", "f16"), ("tq2_0", "q8_0"), ("tq2_0", "q6_k"), ("tq1_0", "bf16"), ("tq2_0", "f32")]:
    reader = gguf.GGUFReader(convert(to, "--embed", embed))
    assert {tensor.name for tensor in reader.tensors} == set(expected)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(expected[tensor.name].shape)
        want = expected[tensor.name]
        if tensor.name == "token_embd.weight":
            assert tensor.tensor_type == types[embed.upper()], tensor.tensor_type
            # Of the greatest number of a block the step is a 127th or a 31st.
            near = {"q8_0": np.abs(want).max() / 127, "q6_k": np.abs(want).max() / 31}.get(embed, 0)
            assert np.abs(values - want).max() <= near, (to, embed)
        else:
            assert np.array_equal(values, want), (to, tensor.name)
    fields = reader.fields
    assert fields["general.file_type"].contents() == {"tq1_0": 36, "tq2_0": 37}[to]
    print(f"{to}, embeddings in {embed}: {len(expected)} tensors as gguf reads them")

for kind in (types.TQ1_0, types.TQ2_0):
    source = gguf.GGUFReader(folder / "tq2_0---embed-f32")
    path = folder / f"python-{kind.name}.gguf"
    writer = gguf.GGUFWriter(path, "bitnet-b1.58")
    for key, field in source.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value_type = field.types[0]
        sub_type = field.types[-1] if value_type == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), value_type, sub_type)
    for tensor in source.tensors:
        values = expected[tensor.name]
        raw = kind if tensor.tensor_type == types.TQ2_0 else types.F32
        writer.add_tensor(tensor.name, gguf.quants.quantize(values, raw), raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = subprocess.run([bitnet, "diff", demo, path], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    print(f"{kind.name} written by gguf: {found.stdout.strip()}")
