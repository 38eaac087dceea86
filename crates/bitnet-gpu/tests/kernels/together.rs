//! A pass in one launch: the same as its operations one by one, by any number of blocks.

use bitnet_gpu::tiles;

use crate::gpu::{Args, Gpu, Random};
use crate::linear::{Matrix, tiles_of, upload};
use crate::norm::EPS;

const ROWS: usize = 2;
const HIDDEN: usize = 256;
const SIZE: usize = 32;
const KV_BLOCK: usize = 16;
const SPAN: usize = 512;

/// The operations by their names, in the order in which the kernel counts them.
const KINDS: [&str; 12] = [
    "embed_f32",
    "embed_f16",
    "embed_bf16",
    "rmsnorm_f32",
    "add_f32",
    "gate_f32",
    "i2s_gpu_gemv_mma_u8s8_norm",
    "i2s_gpu_gemv_mma_u8s8_quant",
    "i2s_gpu_gemv_mma_u8s8_norm_gate",
    "attn_gqa_f32",
    "attn_gqa_f16",
    "attn_gqa_q8_0",
];

/// An operation: its kernel, the blocks that it has by itself, the shared memory of each, and its arguments.
struct Op {
    kernel: &'static str,
    grid: [u32; 3],
    shared: usize,
    args: Args,
}

/// What passes differ by.
#[derive(Clone, Copy, Debug)]
struct Kind {
    embeddings: &'static str,
    attention: &'static str,
    heads: usize,
    kv_heads: usize,
    ffn: usize,
    activation: i32,
}

/// A layer, and what is before and behind it, in the memory of a device.
struct Pass {
    kind: Kind,
    gpu: Gpu,
    ops: Vec<Op>,
    /// What is computed: where, and how many numbers.
    results: Vec<(u64, usize)>,
}

impl Pass {
    fn new(kind: Kind) -> Pass {
        let Kind { embeddings, attention, heads, kv_heads, ffn, activation } = kind;
        let mut pass = Pass { kind, gpu: Gpu::new("sm_80"), ops: Vec::new(), results: Vec::new() };
        let x = pass.floats(HIDDEN);
        let rows = pass.rows();
        pass.embed(embeddings, &rows, x);
        let (q, kv) = (heads * SIZE, kv_heads * SIZE);
        let qkv = pass.multiply((x, HIDDEN, true), &[q, kv, kv], None);
        let attended = pass.attend(attention, &rows, &qkv);
        pass.multiply((attended, q, false), &[HIDDEN], Some(x));
        let gated = pass.gate(x);
        pass.multiply((gated, ffn, true), &[HIDDEN], Some(x));
        // As architectures have it whose parts are apart.
        let [gate, up] = [7, 8].map(|seed| {
            let numbers = Random::new(seed).floats(ROWS * ffn);
            pass.gpu.upload(&numbers)
        });
        let n = (ROWS * ffn) as i32;
        let args = Args::default().with(gate).with(up).with(activation).with(n).end();
        pass.push("gate_f32", [blocks_of(n), 1, 1], 0, args);
        let args = Args::default().with(up).with(gate).with(n);
        pass.push("add_f32", [blocks_of(n), 1, 1], 0, args);
        pass.results.extend([(gate, ROWS * ffn), (up, ROWS * ffn)]);
        pass.norm(x);
        pass
    }

    fn push(&mut self, kernel: &'static str, grid: [u32; 3], shared: usize, args: Args) {
        self.ops.push(Op { kernel, grid, shared, args });
    }

    /// Room for a result.
    fn floats(&mut self, cols: usize) -> u64 {
        let at = self.gpu.room::<f32>(ROWS * cols);
        self.results.push((at, ROWS * cols));
        at
    }

    fn weights(&mut self, cols: usize) -> u64 {
        self.gpu.upload(&Random::new(1).floats(cols))
    }

    /// Two rows of different sequences: tokens, sequences, positions.
    fn rows(&mut self) -> [u64; 3] {
        [[3_i32, 1], [0, 1], [SPAN as i32 + 20, 5]].map(|list| self.gpu.upload(&list))
    }

    fn embed(&mut self, kernel: &'static str, rows: &[u64; 3], x: u64) {
        let numbers = 4 * HIDDEN;
        let table = match kernel {
            "embed_f32" => self.gpu.upload(&Random::new(5).floats(numbers)),
            // Halves and brain floats alike.
            _ => self.gpu.upload(&(0..numbers).map(|i| 0x3c00 + i as u16).collect::<Vec<_>>()),
        };
        let args = rows.iter().fold(Args::default().with(table), |args, list| args.with(*list));
        let args = args.with(HIDDEN as i32).with(1.5_f32).with(x);
        self.push(kernel, [ROWS as u32, 1, 1], 0, args);
    }

    fn norm(&mut self, x: u64) {
        let (weight, y) = (self.weights(HIDDEN), self.floats(HIDDEN));
        let which = self.gpu.upload(&[1_i32, 0]);
        let args = Args::default().with(x).with(weight).with(which).with(EPS);
        let args = args.with(HIDDEN as i32).end().with(y);
        self.push("rmsnorm_f32", [ROWS as u32, 1, 1], 4 * HIDDEN, args);
    }

    /// Products of rows, behind a norm or not; added to what is there, or new.
    fn multiply(
        &mut self,
        (x, cols, norm): (u64, usize, bool),
        rows: &[usize],
        add: Option<u64>,
    ) -> Vec<u64> {
        let matrices: Vec<_> =
            (1..).zip(rows).map(|(seed, &rows)| Matrix::new(rows, cols, seed)).collect();
        let kernel = if norm { KINDS[6] } else { KINDS[7] };
        let tiles = tiles_of(&matrices);
        self.product((kernel, tiles), (x, cols, norm), (&matrices, add))
    }

    fn gate(&mut self, x: u64) -> u64 {
        let matrices = [4, 5].map(|seed| Matrix::new(self.kind.ffn, HIDDEN, seed));
        let tiles = tiles_of(&matrices[..1]);
        self.product((KINDS[8], tiles), (x, HIDDEN, true), (&matrices, None))[0]
    }

    fn product(
        &mut self,
        (kernel, tiles): (&'static str, u32),
        (x, cols, norm): (u64, usize, bool),
        (matrices, add): (&[Matrix], Option<u64>),
    ) -> Vec<u64> {
        let weight = if norm { self.weights(cols) } else { 0 };
        let args = Args::default().with(x).with(weight).with(EPS).with(cols as i32).end();
        let (args, results) = match add {
            None => upload(&mut self.gpu, args, (matrices, cols), (ROWS, None)),
            Some(at) => {
                let (args, _) = upload(&mut self.gpu, args, (matrices, cols), (ROWS, None));
                (args.at(24 + 8, at), Vec::new())
            }
        };
        let width = tiles::width(cols);
        let args = args.with(0_u64).with(0_u64).with(0_u64).with(ROWS as i32).with(width as i32);
        let args = args.with(i32::from(add.is_some())).with(self.kind.activation).end();
        self.push(kernel, [tiles, 1, 1], ROWS * (4 * cols + width + 16), args);
        self.results.extend(&results);
        results.into_iter().map(|(y, _)| y).collect()
    }

    fn attend(&mut self, kernel: &'static str, rows: &[u64; 3], qkv: &[u64]) -> u64 {
        let Kind { heads, kv_heads, .. } = self.kind;
        let (spans, group, positions) = (2, heads / kv_heads, SPAN + 32);
        let head = match kernel {
            "attn_gqa_f32" => 4 * SIZE,
            "attn_gqa_f16" => 2 * SIZE,
            _ => 34,
        };
        let block_bytes = 2 * kv_heads * KV_BLOCK * head;
        let table = positions / KV_BLOCK;
        // All that is in the cache is a small number, whatever the format.
        let cache = self.gpu.upload(&vec![0x11_u8; 2 * table * block_bytes]);
        self.results.push((cache, 2 * table * block_bytes / 4));
        let tables: Vec<u32> = (0..2 * table as u32).rev().collect();
        let tables = self.gpu.upload(&tables);
        let out = self.floats(heads * SIZE);
        let parts = self.gpu.room::<f32>(ROWS * spans * heads * (SIZE + 2));
        let counters = self.gpu.upload(&vec![0_u32; ROWS * kv_heads]);
        let args = Args::default().with(qkv[0]).with(out).with(parts).with(counters);
        let args = args.with(0.25_f32).with(group as i32).end();
        let angles = Random::new(3).floats(positions * SIZE / 2);
        let angles = self.gpu.upload(&angles);
        let args = qkv.iter().fold(args, |args, x| args.with(*x));
        let args = args.with(angles).with(angles).with(heads as i32).end();
        let args = rows.iter().fold(args, |args, list| args.with(*list));
        let args = args.with(cache).with(tables).with(block_bytes as u64).with(table as i32);
        let args = args.with(0_i32).with(kv_heads as i32).with(SIZE as i32).end();
        let shared = 4 * group * (SIZE + SPAN + SPAN / KV_BLOCK + 2);
        self.push(kernel, [kv_heads as u32, ROWS as u32, spans as u32], shared, args);
        out
    }

    /// The bits of all that is computed.
    fn results(&self) -> Vec<Vec<u32>> {
        self.results.iter().map(|&(at, n)| self.gpu.download(at, n)).collect()
    }

    fn one_by_one(mut self) -> Vec<Vec<u32>> {
        for op in &self.ops {
            self.gpu.launch(op.kernel, (op.grid, 256, op.shared), &op.args);
        }
        self.results()
    }

    fn together(mut self, blocks: u32) -> Vec<Vec<u32>> {
        let shared = self.ops.iter().map(|op| op.shared).max().unwrap();
        let mut tape = Vec::new();
        for op in &self.ops {
            let kind = KINDS.iter().position(|kind| *kind == op.kernel).unwrap() as u32;
            let start = tape.len();
            tape.extend([&[kind][..], &op.grid].concat().into_iter().flat_map(u32::to_le_bytes));
            tape.extend(op.args.bytes());
            tape.resize(start + 16 + 160, 0);
        }
        let (tape, arrived) = (self.gpu.upload(&tape), self.gpu.upload(&[0_u32]));
        let args = Args::default().with(tape).with(self.ops.len() as i32).with(arrived);
        self.gpu.launch_together("i2s_gpu_megadecode", ([blocks, 1, 1], 256, shared), &args);
        let counted = self.gpu.download::<u32>(arrived, 1)[0];
        assert!(counted == 0 || counted == 1 << 31, "ready for the next launch: {counted:x}");
        self.results()
    }
}

fn blocks_of(n: i32) -> u32 {
    n.cast_unsigned().div_ceil(256)
}

#[test]
fn a_pass_in_one_launch_is_the_same() {
    // With feed-forward networks of more columns than the threads of a block ask for at the beginning, too.
    let kind = |embeddings, attention, (heads, kv_heads), ffn, activation| Kind {
        embeddings,
        attention,
        heads,
        kv_heads,
        ffn,
        activation,
    };
    for kind in [
        kind("embed_f32", "attn_gqa_f32", (4, 2), 400, 0),
        kind("embed_f16", "attn_gqa_f16", (5, 1), 400, 2),
        kind("embed_bf16", "attn_gqa_q8_0", (3, 1), 4352, 1),
    ] {
        let expected = Pass::new(kind).one_by_one();
        for blocks in [1, 3, 40] {
            let there = Pass::new(kind).together(blocks);
            assert!(there == expected, "{kind:?}, {blocks} blocks");
        }
    }
}
