"""Writes the seeds of all fuzz targets and their dictionaries: the smallest files that are sound, of each
kind. Run it in this folder; it needs nothing but Python."""

import json
import pathlib
import re
import struct

BYTES = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
MOVED = [byte for byte in range(256) if byte not in BYTES]
SPELLED = {**{b: chr(b) for b in BYTES}, **{b: chr(0x100 + i) for i, b in enumerate(MOVED)}}
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace("{1,3}", "")
HIDDEN, FFN, HEADS, KV_HEADS = 16, 32, 2, 1
HEAD = HIDDEN // HEADS


def save(path, content):
    path = pathlib.Path("seeds") / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


# GGUF

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
PLAIN = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q"}
PLAIN |= {I64: "q", F64: "d"}


def text(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def value(kind, x):
    """A metadata value without its type; arrays are (type of elements, list)."""
    if kind == STRING:
        return text(x)
    if kind == ARRAY:
        element, items = x
        return struct.pack("<IQ", element, len(items)) + b"".join(value(element, i) for i in items)
    return struct.pack("<" + PLAIN[kind], x)


def gguf(metadata, tensors, version=3):
    """`metadata`: key, type, value. `tensors`: name, dimensions, type, data."""
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for key, kind, x in metadata:
        out += text(key) + struct.pack("<I", kind) + value(kind, x)
    data = b""
    for name, dims, kind, payload in tensors:
        data += b"\0" * (-len(data) % 32)
        out += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, len(data))
        data += payload
    return out + b"\0" * (-len(out) % 32) + data


def halves(count):
    return b"".join(struct.pack("<e", (i * 7 % 13 - 6) / 8) for i in range(count))


def ones(count):
    return struct.pack(f"<{count}f", *[1.0] * count)


def i2_s(rows, cols):
    codes = bytes([0x55, 0x19, 0x86, 0x24])
    return 36, codes * (rows * cols // 16) + struct.pack("<8f", 0.5, *[0.0] * 7)


def exact(rows, cols):
    return 1, b"".join(struct.pack("<e", (i % 3 - 1) / 4) for i in range(rows * cols))


def q2_0(rows, cols):
    block = struct.pack("<e", 0.25) + bytes([0x55, 0x19, 0x86, 0x24]) * 4
    return 42, block * (rows * cols // 64)


def model(architecture, matrix, norms, tokenizer, rows, hidden=HIDDEN, more=()):
    head, ffn = hidden // HEADS, 2 * hidden
    q, kv = HEADS * head, KV_HEADS * head
    key = lambda name: f"{architecture}.{name}"
    metadata = [
        ("general.architecture", STRING, architecture),
        (key("block_count"), U32, 1),
        (key("context_length"), U32, 64),
        (key("embedding_length"), U32, hidden),
        (key("feed_forward_length"), U32, ffn),
        (key("attention.head_count"), U32, HEADS),
        (key("attention.head_count_kv"), U32, KV_HEADS),
        (key("attention.key_length"), U32, head),
        (key("rope.dimension_count"), U32, head),
        (key("rope.freq_base"), F32, 10000.0),
        (key("attention.layer_norm_rms_epsilon"), F32, 1e-5),
        (key("vocab_size"), U32, rows),
        *[(key(name), kind, x) for name, kind, x in more],
        *[(f"tokenizer.ggml.{name}", kind, x) for name, kind, x in tokenizer],
    ]
    shapes = {
        "attn_q": (q, hidden), "attn_k": (kv, hidden), "attn_v": (kv, hidden),
        "attn_output": (hidden, q), "ffn_gate": (ffn, hidden), "ffn_up": (ffn, hidden),
        "ffn_down": (hidden, ffn),
    }
    widths = {"ffn_sub_norm": ffn, "attn_q_norm": head, "attn_k_norm": head}
    tensors = [
        ("token_embd.weight", [hidden, rows], 1, halves(rows * hidden)),
        ("output_norm.weight", [hidden], 0, ones(hidden)),
    ]
    for name in norms:
        width = widths.get(name, hidden)
        tensors.append((f"blk.0.{name}.weight", [width], 0, ones(width)))
    for name, (m, k) in shapes.items():
        tensors.append((f"blk.0.{name}.weight", [k, m], *matrix(m, k)))
    return gguf(metadata, tensors)


BYTE_LEVEL = [*SPELLED.values(), "th", "he", "the", "Ġthe"]
MERGES = ["t h", "h e", "th e", "Ġ the"]
SPECIAL = ["<|begin_of_text|>", "<|eot_id|>"]
ROWS = len(BYTE_LEVEL) + len(SPECIAL)
PIECES = ["<unk>", "<s>", "</s>", "▁", "a", "▁a", "b", "ab"]
GPT2 = [
    ("model", STRING, "gpt2"),
    ("pre", STRING, "llama-bpe"),
    ("tokens", ARRAY, (STRING, BYTE_LEVEL + SPECIAL)),
    ("token_type", ARRAY, (I32, [1] * len(BYTE_LEVEL) + [3, 3])),
    ("merges", ARRAY, (STRING, MERGES)),
    ("bos_token_id", U32, ROWS - 2),
    ("eos_token_id", U32, ROWS - 1),
    ("add_bos_token", BOOL, True),
]
LLAMA = [
    ("model", STRING, "llama"),
    ("tokens", ARRAY, (STRING, PIECES)),
    ("token_type", ARRAY, (I32, [2, 3, 3, 1, 1, 1, 1, 1])),
    ("scores", ARRAY, (F32, [0.0, 0.0, 0.0, -5.0, -4.0, -1.0, -3.0, -2.0])),
    ("bos_token_id", U32, 1),
    ("eos_token_id", U32, 2),
    ("unknown_token_id", U32, 0),
    ("add_space_prefix", BOOL, True),
]
SANDWICH = ["attn_norm", "attn_q_norm", "attn_k_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"]
MODELS = {
    "bitnet": model(
        "bitnet-b1.58", i2_s, ["attn_norm", "attn_sub_norm", "ffn_norm", "ffn_sub_norm"], GPT2, ROWS
    ),
    "llama": model("llama", exact, ["attn_norm", "ffn_norm"], LLAMA, len(PIECES)),
    "qwen3": model(
        "qwen3", q2_0, ["attn_norm", "attn_q_norm", "attn_k_norm", "ffn_norm"], [], 8, hidden=64
    ),
    "gemma3": model(
        "gemma3", exact, SANDWICH, [], 8, more=[("attention.sliding_window", U32, 16)]
    ),
}
for name, file in MODELS.items():
    save(f"model/{name}.gguf", file)

VALUES = [
    *[(f"plain.{kind}", kind, 1) for kind in PLAIN],
    ("text", STRING, "Once upon a time"),
    *[(f"list.{kind}", ARRAY, (kind, [0, 1])) for kind in PLAIN],
    ("list.text", ARRAY, (STRING, ["a", "", "▁the"])),
    ("list.lists", ARRAY, (ARRAY, [(U8, [1, 2]), (ARRAY, [(STRING, ["b"])])])),
    ("general.alignment", U32, 32),
    ("general.architecture", STRING, "bitnet-b1.58"),
]
# The data of 256 weights in every type that is read.
SIZES = {0: 1024, 1: 512, 30: 512, 2: 144, 8: 272, 12: 144, 14: 210, 22: 82, 42: 72, 36: 96, 34: 54, 35: 66}
save("gguf/values.gguf", gguf(VALUES, []))
save("gguf/version2.gguf", gguf([("a", U8, 1)], [("b", [1, 1, 1, 2], 0, ones(2))], version=2))
TYPES = [(f"type.{kind}", [256], kind, bytes(size)) for kind, size in SIZES.items()]
save("gguf/types.gguf", gguf([("general.architecture", STRING, "bitnet-b1.58")], TYPES))


# Hugging Face folders


def safetensors(tensors):
    """`tensors`: name, type, shape, data."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, dtype, shape, payload in tensors:
        offsets = [len(data), len(data) + len(payload)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += payload
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def packed(rows, cols):
    return "U8", [rows // 4, cols], bytes([0x55, 0x19, 0x86, 0x24]) * (rows * cols // 16)


def plain(rows, cols):
    return "F16", [rows, cols], halves(rows * cols)


def folder(matrix):
    block = "model.layers.0."
    linears = {
        "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (HEAD, HIDDEN),
        "self_attn.v_proj": (HEAD, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN),
        "mlp.gate_proj": (FFN, HIDDEN), "mlp.up_proj": (FFN, HIDDEN), "mlp.down_proj": (HIDDEN, FFN),
    }
    norms = {
        block + "input_layernorm": HIDDEN, block + "post_attention_layernorm": HIDDEN,
        block + "self_attn.attn_sub_norm": HIDDEN, block + "mlp.ffn_sub_norm": FFN,
        "model.norm": HIDDEN,
    }
    tensors = [("model.embed_tokens.weight", "F16", [len(PIECES), HIDDEN], halves(len(PIECES) * HIDDEN))]
    tensors += [(f"{name}.weight", "F32", [width], ones(width)) for name, width in norms.items()]
    for name, shape in linears.items():
        tensors.append((f"{block}{name}.weight", *matrix(*shape)))
        if matrix is packed:
            tensors.append((f"{block}{name}.weight_scale", "F16", [1], struct.pack("<e", 0.5)))
    return safetensors(tensors)


save("safetensors/bitnet.safetensors", folder(packed))
save("safetensors/master.safetensors", folder(plain))
save("safetensors/empty.safetensors", safetensors([]))
save("safetensors/none.safetensors", safetensors([("a", "F32", [0, 4], b""), ("b", "I64", [], bytes(8))]))

CONFIG = {
    "architectures": ["BitNetForCausalLM"],
    "model_type": "bitnet",
    "hidden_size": HIDDEN,
    "intermediate_size": FFN,
    "num_hidden_layers": 1,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "max_position_embeddings": 64,
    "vocab_size": len(PIECES),
    "hidden_act": "relu2",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "bos_token_id": 1,
    "eos_token_id": [2],
    "tie_word_embeddings": True,
    "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear"},
}
GEMMA3 = CONFIG | {
    "architectures": ["Gemma3TextModel"],
    "model_type": "gemma3_text",
    "hidden_act": None,
    "hidden_activation": "gelu_pytorch_tanh",
    "sliding_window": 16,
    "layer_types": ["sliding_attention"],
    "query_pre_attn_scalar": HEAD,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
}
QWEN3 = CONFIG | {
    "architectures": ["Qwen3Model"],
    "model_type": "qwen3",
    "head_dim": HEAD,
    "hidden_act": "silu",
    "use_sliding_window": False,
    "rope_scaling": None,
    "quantization_config": CONFIG["quantization_config"]
    | {"use_rms_norm": True, "rms_norm_eps": 1e-5, "modules_to_not_convert": ["lm_head"]},
}
CONFIGS = {"bitnet": CONFIG, "gemma3": GEMMA3, "qwen3": QWEN3}
for name, config in CONFIGS.items():
    save(f"config/{name}.json", json.dumps(config, indent=1))

INDEXES = {
    "one": "model.safetensors",
    "missing": "model-00001-of-00002.safetensors",
    "above": "../foreign.safetensors",
    "below": "inner/foreign.safetensors",
}
for name, file in INDEXES.items():
    index = {"metadata": {"total_size": 1}, "weight_map": {"model.norm.weight": file}}
    save(f"index/{name}.json", json.dumps(index))


def added(first, texts):
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    return [{"id": first + i, "content": t, **flags, "special": t[0] == "<"} for i, t in enumerate(texts)]


def tokenizer(texts, merges, special, pipeline, **options):
    vocab = {text: i for i, text in enumerate(texts)}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": added(len(texts), special),
        "normalizer": None, "pre_tokenizer": None, "post_processor": None, **pipeline,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges, **options},
    }


def sequence(name, parts):
    return {"type": "Sequence", name: parts}


SPELL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
UNREPLACE = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
FALLBACK = [UNREPLACE, {"type": "ByteFallback"}, {"type": "Fuse"}]
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def split(expression):
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


def cut(*parts, decoder=SPELL):
    return {"pre_tokenizer": sequence("pretokenizers", [*parts]), "decoder": decoder}


def template(name, id):
    place = lambda kind, of: {kind: {"id": of, "type_id": 0}}
    single = [place("SpecialToken", name), place("Sequence", "A")]
    special = {name: {"id": name, "ids": [id], "tokens": [name]}}
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special}


NAMED = [f"<0x{byte:02X}>" for byte in range(256)]
GEMMA = {"normalizer": REPLACE, "decoder": sequence("decoders", FALLBACK)}
LLAMA2 = {
    "normalizer": sequence("normalizers", [{"type": "Prepend", "prepend": "▁"}, REPLACE]),
    "post_processor": template("<s>", 1),
    "decoder": sequence("decoders", [*FALLBACK, STRIP]),
}
METASPACE = {
    "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True},
    "decoder": LLAMA2["decoder"],
}
PUNCTUATION = [{"type": "Punctuation", "behavior": "Contiguous"}, SPELL | {"use_regex": True}]
TOKENIZERS = {
    "byte_level": tokenizer(
        BYTE_LEVEL, MERGES, SPECIAL,
        cut(split(LLAMA3), SPELL) | {"post_processor": template(SPECIAL[0], ROWS - 2)},
        ignore_merges=True,
    ),
    "qwen2": tokenizer(
        BYTE_LEVEL, [merge.split(" ") for merge in MERGES], ["<|im_end|>", "user"],
        cut(split(QWEN), SPELL) | {"normalizer": {"type": "NFC"}},
    ),
    "falcon": tokenizer(
        BYTE_LEVEL, MERGES, [], cut(*PUNCTUATION, {"type": "Digits", "individual_digits": True})
    ),
    "gemma": tokenizer(
        ["<unk>", *NAMED, *PIECES[3:]], ["▁ a", "a b"], ["x y"], GEMMA, byte_fallback=True,
        unk_token="<unk>",
    ),
    "llama2": tokenizer(
        PIECES, ["▁ a", "a b"], [], LLAMA2, unk_token="<unk>", fuse_unk=True
    ),
    "metaspace": tokenizer(PIECES, ["▁ a", "a b"], ["<pad>"], METASPACE, unk_token="<unk>"),
}
for name, file in TOKENIZERS.items():
    save(f"tokenizer/{name}.json", json.dumps(file, ensure_ascii=False, separators=(",", ":")))


# Dictionaries: the words of these files.


def words(x):
    if isinstance(x, dict):
        return set(x) | set().union(*map(words, x.values()))
    if isinstance(x, list):
        return set().union(*map(words, x))
    return {x} if isinstance(x, str) else set()


def dictionary(name, found):
    def entry(word):
        plain = all(0x20 <= byte < 0x7F and byte not in b'"\\' for byte in word)
        return word.decode() if plain else "".join(f"\\x{byte:02x}" for byte in word)

    lines = sorted(f'"{entry(word)}"\n' for word in found if 1 < len(word) <= 60)
    pathlib.Path("dictionaries").mkdir(exist_ok=True)
    pathlib.Path(f"dictionaries/{name}.dict").write_text("".join(lines))


def quoted(found):
    return [json.dumps(word, ensure_ascii=False).encode() for word in found]


def keys(file):
    """The keys and the names of tensors of a GGUF file: all that has a length before it."""
    for at in range(len(file) - 8):
        (length,) = struct.unpack_from("<Q", file, at)
        word = file[at + 8 : at + 8 + length]
        if 3 < length < 60 and word.isascii() and word.decode().isprintable():
            yield word


NUMBERS = [b"0", b"-1", b"1e308", b"4294967295", b"9223372036854775807", b"18446744073709551615"]
WORDS = {word for file in MODELS.values() for word in keys(file)}
dictionary("gguf", WORDS)
dictionary("model", WORDS)
dictionary("config", [*quoted(words([*CONFIGS.values()])), *NUMBERS])
dictionary("index", [*quoted(["weight_map", *INDEXES.values(), "..", "C:", "a\\b"]), *NUMBERS])
DTYPES = ["F64", "F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F4"]
names = ["dtype", "shape", "data_offsets", "__metadata__", *DTYPES]
dictionary("safetensors", [*quoted(names), *NUMBERS])
parts = [{**file, "model": {**file["model"], "vocab": {}}} for file in TOKENIZERS.values()]
dictionary("tokenizer", [*quoted(words(parts) | {"<0x0A>", "Ġthe"}), *NUMBERS])

# Those of the program, those that tests hold against the reference, and what these do not have.
SYNTAX = """{%- macro line(text, width=2) -%}{{ text | trim | indent(width) }}{%- endmacro -%}
{%- set ns = namespace(first=true, all=[]) -%}
{%- for m in messages if m.content -%}
{%- set ns.all = ns.all + [m.role ~ ': ' ~ line(m['content'][:20])] -%}
{%- if loop.first and not loop.last %}{{ loop.index0 }}{% elif m.role in ('user', 'x') %}{{ 2 ** 3 // 3 % 2 }}{% else %}-{% endif -%}
{%- else -%}none{%- endfor -%}
{%- set block %}{{ ns.all | join('\\n') | upper }}{% endset -%}
{{ block if block is string else {'a': 1}['a'] }}{{ tools | map(attribute='name') | list | tojson(indent=2) }}
{%- for k, v in {'b': [1, 2.5, none]}.items() %}{{ k }}={{ v | length }}{{ v[-1] is none }}{% endfor -%}
{{ strftime_now('%d %b %Y') }}{{ '<s>' .split('s') | last | default('x', true) }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{%- if false %}{{ raise_exception('no') }}{% endif -%}{# a comment #}{% raw %}{{ raw }}{% endraw %}
"""
CRATE = pathlib.Path("../crates/bitnet-inference")
templates = {path.name: path.read_text() for path in sorted(CRATE.glob("*/chat/templates/*.jinja"))}
templates["syntax.jinja"] = SYNTAX
for name, template in templates.items():
    save(f"template/{name}", template.encode())
found = {word for template in templates.values() for word in re.findall(r"\w+|[^\w\s]+", template)}
dictionary("template", [word.encode() for word in found])
