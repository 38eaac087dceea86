"""The speed of PyTorch on a transformer in the shape of BitNet b1.58, with random weights in bfloat16.

A token, and a prompt, is one CUDA graph, replayed: no launch waits for the host. Prints what `bitnet bench -o json` has of each test.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ["hidden", "layers", "heads", "kv-heads", "head-size", "ffn", "vocabulary"]:
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--n-prompt", type=int, default=512)
    parser.add_argument("--n-gen", type=int, default=128)
    parser.add_argument("--n-parallel", type=lambda text: [int(n) for n in text.split(",")], default=[1])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--device", default="cuda:0")
    return parser.parse_args()


class Model:
    """Weights, each `[outputs, inputs]`, and norms."""

    def __init__(self, args, device):
        def matrix(rows, cols):
            return torch.randn(rows, cols, device=device, dtype=torch.bfloat16) / cols**0.5

        def norm(size):
            return torch.ones(size, device=device, dtype=torch.bfloat16)

        queries, keys = args.heads * args.head_size, args.kv_heads * args.head_size
        self.args = args
        self.table = matrix(args.vocabulary, args.hidden)
        self.last = norm(args.hidden)
        self.layers = [
            {
                "attention": norm(args.hidden),
                "qkv": matrix(queries + 2 * keys, args.hidden),
                "joined": norm(queries),
                "out": matrix(args.hidden, queries),
                "network": norm(args.hidden),
                "gate_up": matrix(2 * args.ffn, args.hidden),
                "gated": norm(args.ffn),
                "down": matrix(args.hidden, args.ffn),
            }
            for _ in range(args.layers)
        ]
        steps = torch.arange(args.head_size // 2, device=device)
        self.frequencies = 500000.0 ** (-2.0 * steps / args.head_size)

    def turn(self, x, positions):
        """Rotary positions; `x` is `[texts, heads, tokens, head size]`."""
        angles = positions[:, None] * self.frequencies
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        low, high = x.chunk(2, dim=-1)
        return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1)

    def forward(self, tokens, positions, cache, seen):
        """Logits of the last token of each text. `tokens` is `[texts, tokens]`; `seen` masks positions, or is None: a prompt."""
        args = self.args
        texts, count = tokens.shape
        x = F.embedding(tokens, self.table)
        for layer, (keys, values) in zip(self.layers, cache):
            h = F.rms_norm(x, (args.hidden,), layer["attention"])
            qkv = F.linear(h, layer["qkv"]).view(texts, count, -1, args.head_size).transpose(1, 2)
            q, k, v = qkv.split([args.heads, args.kv_heads, args.kv_heads], dim=1)
            q, k = self.turn(q, positions), self.turn(k, positions)
            keys.index_copy_(2, positions, k)
            values.index_copy_(2, positions, v.contiguous())
            if seen is None:
                h = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            else:
                h = F.scaled_dot_product_attention(q, keys, values, attn_mask=seen, enable_gqa=True)
            h = h.transpose(1, 2).reshape(texts, count, -1)
            x = x + F.linear(F.rms_norm(h, (h.shape[-1],), layer["joined"]), layer["out"])
            h = F.rms_norm(x, (args.hidden,), layer["network"])
            gate, up = F.linear(h, layer["gate_up"]).chunk(2, dim=-1)
            h = F.rms_norm(F.relu(gate).square() * up, (args.ffn,), layer["gated"])
            x = x + F.linear(h, layer["down"])
        return F.linear(F.rms_norm(x[:, -1], (args.hidden,), self.last), self.table)

    def cache(self, texts, positions):
        shape = (texts, self.args.kv_heads, positions, self.args.head_size)
        return [[torch.zeros(shape, device=self.table.device, dtype=self.table.dtype) for _ in range(2)] for _ in self.layers]


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def recorded(work, device):
    """What does some work: a graph, where the device has such."""
    work()
    if device.type != "cuda":
        return work
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def prompts(model, device):
    """Prepares a prompt; gives what runs it."""
    count = model.args.n_prompt
    tokens = torch.randint(model.args.vocabulary, (1, count), device=device)
    positions, cache = torch.arange(count, device=device), model.cache(1, count)
    return recorded(lambda: model.forward(tokens, positions, cache, None), device)


def decoding(model, texts, device):
    """Prepares a token of each of some texts; gives what runs as many as are generated, each the likeliest behind the one before."""
    count = model.args.n_gen
    tokens = torch.randint(model.args.vocabulary, (texts, 1), device=device)
    position, places = torch.zeros(1, device=device, dtype=torch.long), torch.arange(count, device=device)
    cache = model.cache(texts, count)

    def step():
        logits = model.forward(tokens, position, cache, (places <= position)[None, None, None])
        tokens.copy_(logits.argmax(-1, keepdim=True))
        position.copy_((position + 1) % count)

    once = recorded(step, device)

    def all_of_them():
        position.zero_()
        for _ in range(count):
            once()

    return all_of_them


def speed(run, tokens, args, device):
    """The median of tokens a second."""
    run()
    seconds = []
    for _ in range(args.repetitions):
        wait(device)
        start = time.perf_counter()
        run()
        wait(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(tokens / s for s in seconds)


def main():
    args = arguments()
    device = torch.device(args.device)
    torch.manual_seed(1)
    with torch.inference_mode():
        model = Model(args, device)
        tests = []

        def note(test, texts, run, tokens):
            # As `bitnet bench` calls them.
            test += f" x{texts}" if texts > 1 else ""
            tests.append({"test": test, "n_parallel": texts, "median_ts": speed(run, tokens, args, device)})

        note(f"pp{args.n_prompt}", 1, prompts(model, device), args.n_prompt)
        for texts in args.n_parallel:
            note(f"tg{args.n_gen}", texts, decoding(model, texts, device), texts * args.n_gen)
    print(json.dumps({"torch": torch.__version__, "tests": tests}))


if __name__ == "__main__":
    main()
