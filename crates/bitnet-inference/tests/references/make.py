#!/usr/bin/env python3
"""Tiny random models of every architecture but the first, and what transformers computes with them.

For each a folder as Hugging Face has it (config.json, model.safetensors) is written beside this script,
and into references.safetensors the token ids of some prompts and their logits, or hidden states behind
the final norm. All in f32 and on one thread. Prompts are chosen so that no activation lies near a
rounding boundary of its 8 bits: there only the rounding of floats can differ.

Needs torch, transformers 5.23 and safetensors. Run: TORCHDYNAMO_DISABLE=1 python make.py
"""
import json
import os

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # arithmetic as it is written
import torch
from safetensors.torch import save_file
from transformers import (BitNetConfig, BitNetForCausalLM, Gemma3TextConfig, Gemma3TextModel, LlamaConfig,
                          LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM, Qwen3Model)
from transformers.integrations.bitnet import ActQuant, AutoBitLinear, BitLinear, pack_weights

OUT = os.path.dirname(os.path.abspath(__file__))
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
VOCAB = 96
MARGIN = 3e-4  # of a unit of 8-bit activations, to the next boundary
COMMON = dict(vocab_size=VOCAB, num_hidden_layers=2, max_position_embeddings=256, bos_token_id=1, eos_token_id=2,
              use_cache=True, attention_bias=False)

nearest = [1.0]  # to a boundary, of all activations of a run


def watch(scaled):
    nearest[0] = min(nearest[0], ((scaled - scaled.floor()) - 0.5).abs().min().item())


def act_quant(ctx, x):
    scale = 127 / x.abs().max(dim=-1, keepdim=True).values.clamp(min=1e-5)
    watch(x * scale)
    return (x * scale).round().clamp(-128, 127) / scale


def bit_linear_quant(self, x, num_bits=8):
    scale = 127 / x.abs().max(dim=-1, keepdim=True).values.clamp(min=1e-5)
    watch(x * scale)
    return (x * scale).round().clamp(-128, 127).to(torch.int8), scale


ActQuant.forward = staticmethod(act_quant)
BitLinear.activation_quant = bit_linear_quant


def is_linear(name):
    return name.endswith(".weight") and name.split(".")[-2] in LINEARS


def ternarise(w):
    inverse = 1.0 / w.float().abs().mean().clamp(min=1e-5)
    return (w.float() * inverse).round().clamp(-1, 1).to(torch.int8), 1.0 / inverse


def random_weights(model, seed, dtype):
    g = torch.Generator().manual_seed(seed)
    out = {}
    for i, (name, p) in enumerate(model.state_dict().items()):
        if name.endswith("_scale") or name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        x = torch.randn(p.shape, generator=g)
        if p.dim() == 1:
            x = 0.2 * x if "Gemma" in type(model).__name__ and "rms_norm" not in name else 1.0 + 0.2 * x
        else:
            x = x * (0.3 + 0.1 * (i % 7))
        out[name] = x.to(dtype)
    return out


def packed(master, divides):
    out = {}
    for name, w in master.items():
        if not is_linear(name):
            out[name] = w
            continue
        codes, scale = ternarise(w)
        out[name] = pack_weights(codes.clone())
        out[name + "_scale"] = (1.0 / scale if divides else scale).reshape(1).to(torch.bfloat16)
    return out


def two_bits(w):
    """Weights in Q2_0, and its bytes: groups of 64, an f16 scale and codes -1 to 2, four to a byte."""
    groups = w.float().reshape(-1, 64)
    scale = groups.abs().mean(dim=1, keepdim=True).to(torch.float16).float()
    codes = (groups / scale).round().clamp(-1, 2)
    fours = (codes + 1).to(torch.uint8).reshape(len(groups), 16, 4)
    packed = fours[..., 0] | fours[..., 1] << 2 | fours[..., 2] << 4 | fours[..., 3] << 6
    blocks = torch.cat([scale.to(torch.float16).view(torch.uint8), packed], dim=1)
    return (codes * scale).reshape(w.shape), blocks


def with_bit_linears(model, kind, rms_norm=False):
    for name, mod in list(model.named_modules()):
        if name.split(".")[-1] not in LINEARS:
            continue
        args = dict(bias=False, dtype=torch.float32, use_rms_norm=rms_norm)
        if kind == "bitlinear":
            new = BitLinear(mod.in_features, mod.out_features, **args)
        else:
            new = AutoBitLinear(mod.in_features, mod.out_features, online_quant=kind == "online", **args)
        model.set_submodule(name, new)
    return model.to(torch.float32).eval()


def load(model, tensors):
    state = {}
    for name, w in tensors.items():
        if w.dtype == torch.uint8 and not isinstance(model.get_submodule(name.rsplit(".", 1)[0]), BitLinear):
            w = torch.cat([((w >> (2 * i)) & 3).float() - 1 for i in range(4)], dim=0)
        state[name] = w if w.dtype == torch.uint8 else w.float()
    if "lm_head.weight" in model.state_dict() and "lm_head.weight" not in state:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all("rotary" in x or "embed_scale" in x for x in missing), (missing, unexpected)
    return model


@torch.no_grad()
def run(model, ids):
    out = model(input_ids=torch.tensor([ids]), use_cache=False)
    out = out.logits if hasattr(out, "logits") else out.last_hidden_state
    return out[0].float().contiguous()


def prompts(model):
    """A prompt of one token, and longer ones: each next token is one whose activations, and those after
    it, are all far from boundaries."""
    g = torch.Generator().manual_seed(7)
    ids = []
    for length in (1, 5, 12):
        while len(ids) < length:
            nearest[0] = 1.0
            token = torch.randint(3, VOCAB, (1,), generator=g).item()
            out = run(model, ids + [token])
            if nearest[0] > MARGIN:
                ids.append(token)
        yield ids, out


def renamed(tensors, names):
    out = {}
    for name, w in tensors.items():
        for a, b in names:
            name = name.replace(a, b)
        out[name] = w
    return out


def write(name, cfg, tensors):
    d = os.path.join(OUT, name)
    os.makedirs(d, exist_ok=True)
    with open(os.path.join(d, "config.json"), "w") as f:
        json.dump(cfg, f, indent=1)
        f.write("\n")
    save_file({k: v.contiguous() for k, v in tensors.items()}, os.path.join(d, "model.safetensors"),
              metadata={"format": "pt"})


def quantization(linear_class, mode, **more):
    return dict(quant_method="bitnet", linear_class=linear_class, quantization_mode=mode, **more)


def main():
    torch.set_num_threads(1)
    references = {}

    def keep(name, model):
        for i, (ids, out) in enumerate(prompts(model)):
            print(f"{name} prompt {i}: {len(ids)} tokens, std {out.std():.3f}")
            references[f"{name}.{i}.ids"] = torch.tensor(ids, dtype=torch.int32).clone()
            references[f"{name}.{i}.out"] = out

    # 1bitLLM: the block of BitNet with SiLU, other names, heads and widths that are multiples of little.
    cfg = dict(COMMON, hidden_size=80, intermediate_size=212, num_attention_heads=4, num_key_value_heads=4,
               hidden_act="silu", rms_norm_eps=1e-5, tie_word_embeddings=True, rope_theta=10000.0)
    model = with_bit_linears(BitNetForCausalLM(BitNetConfig(**cfg, attn_implementation="eager")), "online")
    master = random_weights(model, 1, torch.float16)
    keep("1bitllm", load(model, master))
    names = [("attn_sub_norm", "inner_attn_ln"), ("ffn_sub_norm", "ffn_layernorm")]
    write("1bitllm", dict(cfg, architectures=["BitnetForCausalLM"], model_type="llama", weight_bits=1, input_bits=8,
                          torch_dtype="float16"), renamed(master, names))

    # Llama, packed, with scales that divide and an output layer of its own.
    cfg = dict(COMMON, hidden_size=64, intermediate_size=160, num_attention_heads=4, num_key_value_heads=2,
               hidden_act="silu", rms_norm_eps=1e-6, tie_word_embeddings=False, rope_theta=1000042.0)
    model = with_bit_linears(LlamaForCausalLM(LlamaConfig(**cfg, attn_implementation="eager")), "bitlinear")
    shapes = LlamaForCausalLM(LlamaConfig(**cfg))
    tensors = packed(random_weights(shapes, 2, torch.bfloat16), divides=True)
    keep("llama", load(model, tensors))
    write("llama", dict(cfg, architectures=["LlamaForCausalLM"], model_type="llama", torch_dtype="bfloat16",
                        quantization_config=dict(quant_method="bitnet", modules_to_not_convert=["lm_head"])), tensors)

    # Qwen3: heads that make more than the residual stream is wide.
    cfg = dict(COMMON, hidden_size=64, intermediate_size=160, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
               hidden_act="silu", rms_norm_eps=1e-6, tie_word_embeddings=True, rope_theta=1000000.0)
    config = lambda: Qwen3Config(**cfg, attn_implementation="eager")
    model = with_bit_linears(Qwen3ForCausalLM(config()), "offline")
    tensors = packed(random_weights(model, 3, torch.bfloat16), divides=False)
    keep("qwen3", load(model, tensors))
    write("qwen3", dict(cfg, architectures=["Qwen3ForCausalLM"], model_type="qwen3", torch_dtype="bfloat16",
                        quantization_config=quantization("autobitlinear", "offline")), tensors)

    # Qwen3 with weights of two bits and a scale for each group, activations as they are: Ternary-Bonsai.
    # safetensors has no such type: the bytes of Q2_0 are written as they are.
    cfg2 = dict(cfg, intermediate_size=192, tie_word_embeddings=False)
    model = Qwen3ForCausalLM(Qwen3Config(**cfg2, attn_implementation="eager")).to(torch.float32).eval()
    master = random_weights(model, 6, torch.bfloat16)
    weights, blocks = {}, {}
    for name, w in master.items():
        if is_linear(name):
            weights[name], blocks[name] = two_bits(w)
        else:
            weights[name], blocks[name] = w, w
    keep("qwen3-q2_0", load(model, weights))
    write("qwen3-q2_0", dict(cfg2, architectures=["Qwen3ForCausalLM"], model_type="qwen3", torch_dtype="bfloat16"), blocks)

    # The embedding models: a norm before every linear layer, no output layer.
    settings = quantization("autobitlinear", "offline", use_rms_norm=True, rms_norm_eps=1e-6)
    model = with_bit_linears(Qwen3Model(config()), "offline", rms_norm=True)
    tensors = packed(random_weights(model, 4, torch.bfloat16), divides=False)
    keep("qwen3-embedding", load(model, tensors))
    write("qwen3-embedding", dict(cfg, architectures=["Qwen3Model"], model_type="qwen3", torch_dtype="bfloat16",
                                  quantization_config=settings), tensors)

    cfg = dict(COMMON, hidden_size=48, intermediate_size=96, num_attention_heads=4, num_key_value_heads=1, head_dim=32,
               num_hidden_layers=6, hidden_activation="gelu_pytorch_tanh", rms_norm_eps=1e-6, tie_word_embeddings=True,
               query_pre_attn_scalar=32, sliding_window=32)
    config = Gemma3TextConfig(**cfg, attn_implementation="eager")
    model = with_bit_linears(Gemma3TextModel(config), "offline", rms_norm=True)
    tensors = packed(random_weights(model, 5, torch.bfloat16), divides=False)
    keep("gemma3-embedding", load(model, tensors))
    rope = dict(rope_theta=1000000.0, rope_local_base_freq=10000.0, sliding_window_pattern=6)
    print(config.rope_parameters, config.layer_types)
    write("gemma3-embedding", dict(cfg, **rope, architectures=["Gemma3TextModel"], model_type="gemma3_text",
                                   torch_dtype="bfloat16", quantization_config=settings), tensors)
    save_file(references, os.path.join(OUT, "references.safetensors"))


if __name__ == "__main__":
    main()
