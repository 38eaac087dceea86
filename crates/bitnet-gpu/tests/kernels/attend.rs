//! Positions, keys and values, and attention.

use bitnet_gpu::PrecisionMode;
use bitnet_gpu::kernels::{KernelId, RowTiles};
use bitnet_kernels::op::{
    AttendArgs, AttendFn, JoinArgs, JoinFn, KV_BLOCK, Keys, Place, RopeArgs, RopeFn, SPAN,
    StoreArgs, StoreFn, part,
};
use bitnet_kernels::pool::Tile;
use bitnet_kernels::{Aligned, Format};

use crate::gpu::{Args, Gpu, Random, bits, reference};

const LAYERS: usize = 2;
const LAYER: usize = 1;

/// A model's attention.
#[derive(Clone, Copy, Debug)]
struct Shape {
    heads: usize,
    kv_heads: usize,
    size: usize,
    format: Format,
}

/// Rows of a pass: sequence and position of each; a row that is not there has a position of -1.
type Row = (usize, i32);

/// A cache of two sequences, on the processor and on the device.
struct Cache {
    shape: Shape,
    blocks: Vec<Aligned<u8>>,
    tables: Vec<Vec<u32>>,
}

impl Shape {
    fn head_bytes(self) -> usize {
        let (numbers, bytes) = self.format.block();
        self.size.div_ceil(numbers) * bytes
    }

    fn block_bytes(self) -> usize {
        2 * LAYERS * self.kv_heads * KV_BLOCK * self.head_bytes()
    }

    fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    fn suffix(self) -> &'static str {
        match self.format {
            Format::F32 => "f32",
            Format::F16 => "f16",
            _ => "q8_0",
        }
    }

    /// Where the keys and the values of a head start in a block.
    fn starts(self, head: usize) -> (usize, usize) {
        let bytes = KV_BLOCK * self.head_bytes();
        (
            (2 * LAYER * self.kv_heads + head) * bytes,
            ((2 * LAYER + 1) * self.kv_heads + head) * bytes,
        )
    }
}

impl Cache {
    /// Room for so many positions of each sequence, in blocks that are not in order.
    fn new(shape: Shape, positions: usize) -> Cache {
        let each = positions.div_ceil(KV_BLOCK) as u32;
        let blocks = (0..2 * each).map(|_| Aligned::zeros(shape.block_bytes()).unwrap()).collect();
        let tables =
            vec![(0..each).map(|i| 2 * i + 1).collect(), (0..each).rev().map(|i| 2 * i).collect()];
        Cache { shape, blocks, tables }
    }

    fn store(&mut self, (sequence, position): Row, k: &[f32], v: &[f32]) {
        let store = reference().select::<StoreFn>(Some(self.shape.format)).unwrap();
        let Shape { size, .. } = self.shape;
        let position = position as usize;
        let block = &mut self.blocks[self.tables[sequence][position / KV_BLOCK] as usize];
        let (lane, bytes) = (position % KV_BLOCK, self.shape.head_bytes());
        for (head, (k, v)) in k.chunks(size).zip(v.chunks(size)).enumerate() {
            let (keys, values) = self.shape.starts(head);
            let out = &mut block[keys..][..KV_BLOCK * bytes];
            (store.run)(StoreArgs { x: k, place: Place::Lane(lane), out });
            let out = &mut block[values + lane * bytes..][..bytes];
            (store.run)(StoreArgs { x: v, place: Place::Row, out });
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.blocks.iter().flat_map(|block| block.iter().copied()).collect()
    }

    /// The arguments of kernels that say where it is.
    fn args(&self, gpu: &mut Gpu, blocks: u64, args: Args) -> Args {
        let tables = gpu.upload(&self.tables.concat());
        let Shape { kv_heads, size, .. } = self.shape;
        let args = args.with(blocks).with(tables).with(self.shape.block_bytes() as u64);
        let args = args.with(self.tables[0].len() as i32).with(LAYER as i32);
        args.with(kv_heads as i32).with(size as i32).end()
    }

    /// Attention of a row, on the processor.
    fn attend(&self, q: &[f32], (sequence, position): Row) -> Vec<f32> {
        let attend = reference().select::<AttendFn>(Some(self.shape.format)).unwrap();
        let join = reference().select::<JoinFn>(None).unwrap();
        let (size, group) = (self.shape.size, self.shape.group());
        let mut out = Vec::new();
        for (head, q) in q.chunks(group * size).enumerate() {
            let (keys, values) = self.shape.starts(head);
            let stride = self.shape.head_bytes();
            let kv =
                Keys { blocks: &self.blocks, table: &self.tables[sequence], keys, values, stride };
            let spans = position as usize / SPAN + 1;
            let width = group * part(size);
            let mut parts = vec![0.0; spans * width];
            for (span, parts) in parts.chunks_mut(width).enumerate() {
                let positions = position as usize + 1;
                let span = span * SPAN..(span + 1) * SPAN;
                let (scale, out) = (1.0 / (size as f32).sqrt(), Tile::new(parts, width));
                (attend.run)(AttendArgs {
                    q,
                    stride: q.len(),
                    size,
                    kv,
                    positions,
                    span,
                    ahead: false,
                    scale,
                    out,
                });
            }
            for of in 0..group {
                let mut joined = vec![0.0; size];
                let parts = &parts[of * part(size)..(spans - 1) * width + (of + 1) * part(size)];
                (join.run)(JoinArgs { parts, stride: width, out: &mut joined });
                out.extend(joined);
            }
        }
        out
    }
}

fn rows_args(gpu: &mut Gpu, rows: &[Row], args: Args) -> Args {
    let sequences: Vec<i32> = rows.iter().map(|row| row.0 as i32).collect();
    let positions: Vec<i32> = rows.iter().map(|row| row.1).collect();
    args.with(0_u64).with(gpu.upload(&sequences)).with(gpu.upload(&positions))
}

fn angles(positions: usize, half: usize) -> (Vec<f32>, Vec<f32>) {
    let angle = |i: usize| (i / half) as f32 * (0.9_f32).powi((i % half) as i32);
    let all = 0..positions * half;
    (all.clone().map(|i| angle(i).cos()).collect(), all.map(|i| angle(i).sin()).collect())
}

const SHAPES: [Shape; 9] = [
    Shape { heads: 4, kv_heads: 2, size: 64, format: Format::F16 },
    Shape { heads: 20, kv_heads: 5, size: 128, format: Format::F16 },
    Shape { heads: 5, kv_heads: 1, size: 32, format: Format::F32 },
    Shape { heads: 1, kv_heads: 1, size: 32, format: Format::F16 },
    Shape { heads: 2, kv_heads: 2, size: 32, format: Format::Q8_0 },
    Shape { heads: 4, kv_heads: 2, size: 64, format: Format::Q8_0 },
    Shape { heads: 3, kv_heads: 3, size: 256, format: Format::F16 },
    Shape { heads: 18, kv_heads: 2, size: 128, format: Format::F32 },
    Shape { heads: 20, kv_heads: 5, size: 128, format: Format::Q8_0 },
];

#[test]
fn keys_and_values_lie_as_on_the_processor() {
    for target in ["sm_61", "sm_80"] {
        for shape in SHAPES {
            let rows: [Row; 5] = [(0, 0), (1, 37), (0, -1), (0, 15), (1, 16)];
            let mut random = Random::new(7);
            let Shape { heads, kv_heads, size, .. } = shape;
            let (mut q, mut k, v) = (
                random.floats(rows.len() * heads * size),
                random.floats(rows.len() * kv_heads * size),
                random.floats(rows.len() * kv_heads * size),
            );
            if shape.format == Format::Q8_0 {
                k[..32].fill(0.0);
                k[size * kv_heads + 3] = 1e38;
                k[size * kv_heads + 35] = -1e-40;
            }
            let (cos, sin) = angles(40, size / 2);
            let mut cache = Cache::new(shape, 40);
            let mut gpu = Gpu::new(target);
            let blocks = gpu.upload(&cache.bytes());
            let q_at = gpu.upload(&q);
            let args = [&k, &v, &cos, &sin]
                .into_iter()
                .fold(Args::default().with(q_at), |args, x| args.with(gpu.upload(x)));
            let args = args.with(heads as i32).end();
            let args = rows_args(&mut gpu, &rows, args);
            let args = cache.args(&mut gpu, blocks, args);
            let kernel = format!("rope_kv_append_{}", shape.suffix());
            gpu.launch(&kernel, ([rows.len() as u32, 1, 1], 256, 0), &args);

            turn(shape, (&mut q, &mut k), (&cos, &sin), &rows);
            for (i, &row) in rows.iter().enumerate().filter(|(_, row)| row.1 >= 0) {
                let of = i * kv_heads * size..(i + 1) * kv_heads * size;
                cache.store(row, &k[of.clone()], &v[of]);
            }
            assert_eq!(bits(&gpu.download(q_at, q.len())), bits(&q), "{shape:?}");
            let there = cache.bytes();
            assert!(gpu.download::<u8>(blocks, there.len()) == there, "{shape:?}");
        }
    }
}

#[test]
fn attention_is_that_of_the_processor() {
    for target in ["sm_61", "sm_80"] {
        for shape in SHAPES {
            // Of small heads more spans than some steps take together.
            let longest = match shape.size {
                ..64 => 2600,
                64 => 1100,
                _ => 600,
            };
            let rows: [Row; 6] = [
                (0, 0),
                (1, longest - 1),
                (0, 15),
                (1, -1),
                (0, 16),
                (1, longest.min(SPAN as i32 + 37) - 1),
            ];
            let mut random = Random::new(11);
            let Shape { heads, kv_heads, size, .. } = shape;
            let mut cache = Cache::new(shape, longest as usize);
            for sequence in 0..2 {
                let most = if sequence == 0 { 17 } else { longest };
                for position in 0..most {
                    let (k, v) = (random.floats(kv_heads * size), random.floats(kv_heads * size));
                    cache.store((sequence, position), &k, &v);
                }
            }
            let q = random.floats(rows.len() * heads * size);
            check(target, &cache, &rows, &q);
        }
    }
}

/// Of rows none of which is of the sequence of another, attention turns and stores too.
#[test]
fn attention_can_put_its_row_into_the_cache() {
    for target in ["sm_61", "sm_80"] {
        for shape in SHAPES {
            for (first, second) in [(0, 37), (16, SPAN as i32 + 40), (SPAN as i32, 15)] {
                let Shape { heads, kv_heads, size, .. } = shape;
                let rows: [Row; 3] = [(0, first), (0, -1), (1, second)];
                let longest = first.max(second) + 1;
                let mut random = Random::new(17);
                let mut cache = Cache::new(shape, longest as usize);
                for (sequence, last) in [(0, first), (1, second)] {
                    for position in 0..last {
                        let kv = [0; 2].map(|_| random.floats(kv_heads * size));
                        cache.store((sequence, position), &kv[0], &kv[1]);
                    }
                }
                let [mut q, mut k, v] =
                    [heads, kv_heads, kv_heads].map(|n| random.floats(rows.len() * n * size));
                let (cos, sin) = angles(longest as usize, size / 2);
                let mut pass = Pass::new(target, &cache, &rows, &q);
                let rope = [&k, &v, &cos, &sin]
                    .into_iter()
                    .fold(Args::default().with(pass.q), |args, x| args.with(pass.gpu.upload(x)));
                pass.launch(&cache, rope.with(heads as i32).end(), &rows);

                turn(shape, (&mut q, &mut k), (&cos, &sin), &rows);
                for (i, &row) in rows.iter().enumerate().filter(|(_, row)| row.1 >= 0) {
                    let of = i * kv_heads * size..(i + 1) * kv_heads * size;
                    cache.store(row, &k[of.clone()], &v[of]);
                }
                pass.compare(&cache, &rows, &q);
                let there = cache.bytes();
                assert!(pass.gpu.download::<u8>(pass.blocks, there.len()) == there, "{shape:?}");
            }
        }
    }
}

/// Queries and keys, turned by the processor.
fn turn(
    shape: Shape,
    (q, k): (&mut [f32], &mut [f32]),
    (cos, sin): (&[f32], &[f32]),
    rows: &[Row],
) {
    let rope = reference().select::<RopeFn>(None).unwrap();
    let Shape { heads, kv_heads, size, .. } = shape;
    for (i, row) in rows.iter().enumerate().filter(|(_, row)| row.1 >= 0) {
        let at = row.1 as usize * size / 2;
        let (cos, sin) = (&cos[at..][..size / 2], &sin[at..][..size / 2]);
        let of = |width: usize| i * width * size..(i + 1) * width * size;
        (rope.run)(RopeArgs { x: &mut q[of(heads)], cos, sin });
        (rope.run)(RopeArgs { x: &mut k[of(kv_heads)], cos, sin });
    }
}

/// Rows that follow one another, at the ends of blocks and spans, up to as many as go together.
#[test]
fn rows_together_see_what_each_sees_alone() {
    for target in ["sm_61", "sm_80"] {
        for shape in SHAPES {
            let most = RowTiles::new(PrecisionMode::Fp32, shape.group(), shape.size).most() as i32;
            if most < 2 {
                assert_eq!(shape.size, 256);
                continue;
            }
            let Shape { heads, kv_heads, size, .. } = shape;
            // The last of them goes over the end of a span, but is the only one there.
            let longest = SPAN as i32 * if size < 64 { 4 } else { 1 } + 1;
            let first: Vec<Row> = (longest - most..longest).map(|at| (1, at)).collect();
            let second = [(0, 15), (0, 16), (0, 17)];
            let rows = [&first[..], &second].concat();
            let tiles = [[0, most], [0, 0], [most, 3]];
            let mut random = Random::new(11);
            let mut cache = Cache::new(shape, longest as usize);
            for (sequence, most) in [(0, 18), (1, longest)] {
                for position in 0..most {
                    let [mut k, mut v] = [0; 2].map(|_| random.floats(kv_heads * size));
                    // What the last row alone sees of one is no number, and the last of the others is infinite.
                    match (sequence, position) {
                        (0, 17) => v[1] = f32::NAN,
                        (1, at) if at == longest - 1 => k[3] = f32::INFINITY,
                        _ => {}
                    }
                    cache.store((sequence, position), &k, &v);
                }
            }
            let q = random.floats(rows.len() * heads * size);
            let mut pass = Pass::new(target, &cache, &rows, &q);
            for _ in 0..2 {
                pass.launch_together(&cache, &rows, &tiles);
                pass.compare(&cache, &rows, &q);
            }
        }
    }
}

/// Rows on tensor cores, in each precision: close to what the processor has, and the same with whatever rows they are taken.
#[test]
fn rows_on_tensor_cores_are_close() {
    let format = Format::F16;
    let shapes = SHAPES.into_iter().filter(|shape| shape.format == format);
    // Groups that a block has no room for a number of, and heads of other sizes.
    let others = [(5, 1, 48), (6, 2, 16), (20, 1, 112), (80, 2, 80)]
        .map(|(heads, kv_heads, size)| Shape { heads, kv_heads, size, format });
    for shape in shapes.chain(others) {
        for (precision, bound) in [(PrecisionMode::Fp16, 4e-6), (PrecisionMode::Bf16, 2e-2)] {
            close(shape, precision, bound);
        }
    }
}

fn close(shape: Shape, precision: PrecisionMode, bound: f32) {
    let Shape { heads, kv_heads, size, .. } = shape;
    let row_tiles = RowTiles::new(precision, shape.group(), size);
    let most = row_tiles.most() as i32;
    if most < 1 {
        assert_eq!(size, 256);
        return;
    }
    let longest = match size {
        32 => 4 * SPAN as i32 + 1,
        64 | 128 => SPAN as i32 + 1,
        _ => 41,
    };
    let first: Vec<Row> = (longest - most.min(20)..longest).map(|at| (1, at)).collect();
    let rows = [&first[..], &[(0, 15), (0, 16), (0, 17)]].concat();
    let mut random = Random::new(11);
    let mut cache = Cache::new(shape, longest as usize);
    for (sequence, most) in [(0, 18), (1, longest)] {
        for position in 0..most {
            let [mut k, v] = [0; 2].map(|_| random.floats(kv_heads * size));
            if (sequence, position) == (0, 17) {
                k[3] = f32::INFINITY;
            }
            cache.store((sequence, position), &k, &v);
        }
    }
    let q = random.floats(rows.len() * heads * size);
    let mut pass = Pass::new("sm_80", &cache, &rows, &q);
    let kernel = KernelId::together(precision, shape.format).name();
    let shared = 2 * 2 * (size * 40 + 32 * (size + 8));
    let sequences: Vec<_> = rows.iter().map(|row| row.0).collect();
    let mut together: Vec<_> =
        row_tiles.of(&sequences).map(|tile| [tile.start as i32, tile.len() as i32]).collect();
    together.insert(1, [0, 0]);
    let alone: Vec<_> = (0..rows.len() as i32).map(|row| [row, 1]).collect();
    let all: Vec<_> = [&together, &together, &alone]
        .into_iter()
        .map(|tiles| {
            pass.launch_tiles(&cache, (&rows, tiles), (kernel, shared));
            bits(&pass.gpu.download::<f32>(pass.out, q.len()))
        })
        .collect();
    assert!(all[0] == all[1] && all[0] == all[2], "{shape:?}");
    let far = pass.distance(&cache, &rows, &q);
    println!("{precision:?} {shape:?}: {far}");
    assert!(far <= bound, "{shape:?}: {far}");
}

#[test]
fn what_is_not_finite_stays_so() {
    for value in [f32::NAN, f32::INFINITY] {
        let shape = SHAPES[0];
        let Shape { heads, kv_heads, size, .. } = shape;
        let mut random = Random::new(11);
        let mut cache = Cache::new(shape, 600);
        for position in 0..600 {
            let mut k = random.floats(kv_heads * size);
            if position == 530 {
                k[5] = value;
            }
            cache.store((0, position), &k, &random.floats(kv_heads * size));
        }
        let rows = [(0, 599), (0, 500)];
        check("sm_80", &cache, &rows, &random.floats(rows.len() * heads * size));
    }
}

fn check(target: &str, cache: &Cache, rows: &[Row], q: &[f32]) {
    let mut pass = Pass::new(target, cache, rows, q);
    // What it counts with is as before, so that it can run again.
    for _ in 0..2 {
        pass.launch(cache, nothing_to_turn(), rows);
        pass.compare(cache, rows, q);
    }
}

/// The arguments of what has been turned and stored before.
fn nothing_to_turn() -> Args {
    let args = Args::default().with(0_u64).with(0_u64).with(0_u64);
    args.with(0_u64).with(0_u64).with(0_i32).end()
}

/// Attention of some rows on the device.
struct Pass {
    gpu: Gpu,
    q: u64,
    blocks: u64,
    out: u64,
    parts: u64,
    counters: u64,
    spans: usize,
}

impl Pass {
    fn new(target: &str, cache: &Cache, rows: &[Row], q: &[f32]) -> Pass {
        let Shape { heads, kv_heads, size, .. } = cache.shape;
        let spans = rows.iter().map(|row| row.1.max(0) as usize / SPAN + 1).max().unwrap();
        let mut gpu = Gpu::new(target);
        let (blocks, q_at) = (gpu.upload(&cache.bytes()), gpu.upload(q));
        let out = gpu.room::<f32>(q.len());
        let parts = gpu.room::<f32>(rows.len() * spans * heads * (size + 2));
        let counters = gpu.upload(&vec![0_u32; rows.len() * kv_heads]);
        Pass { gpu, q: q_at, blocks, out, parts, counters, spans }
    }

    fn attention(&self, shape: Shape) -> Args {
        let args = Args::default().with(self.q).with(self.out).with(self.parts);
        let args = args.with(self.counters).with(1.0 / (shape.size as f32).sqrt());
        args.with(shape.group() as i32).end()
    }

    fn launch(&mut self, cache: &Cache, rope: Args, rows: &[Row]) {
        let shape = cache.shape;
        let (group, size) = (shape.group(), shape.size);
        let args = self.attention(shape).and(rope);
        let args = rows_args(&mut self.gpu, rows, args);
        let args = cache.args(&mut self.gpu, self.blocks, args);
        let kernel = format!("attn_gqa_{}", shape.suffix());
        let grid = [shape.kv_heads as u32, rows.len() as u32, self.spans as u32];
        let memory = 4 * (group * size + group * SPAN + group * (SPAN / KV_BLOCK) + 2 * group);
        self.gpu.launch(&kernel, (grid, 256, memory), &args);
    }

    /// The rows of each tile, which has the first of these and how many they are, together.
    fn launch_together(&mut self, cache: &Cache, rows: &[Row], tiles: &[[i32; 2]]) {
        let kernel = KernelId::together(PrecisionMode::Fp32, cache.shape.format).name();
        let shared = 4 * cache.shape.size * (36 + 32);
        self.launch_tiles(cache, (rows, tiles), (kernel, shared));
    }

    fn launch_tiles(
        &mut self,
        cache: &Cache,
        (rows, tiles): (&[Row], &[[i32; 2]]),
        (kernel, shared): (&str, usize),
    ) {
        let args = self.attention(cache.shape);
        let args = rows_args(&mut self.gpu, rows, args);
        let args = cache.args(&mut self.gpu, self.blocks, args);
        let args = args.with(self.gpu.upload(&tiles.concat()));
        let grid = [cache.shape.kv_heads as u32, tiles.len() as u32, self.spans as u32];
        self.gpu.launch(kernel, (grid, 128, shared), &args);
    }

    /// The greatest difference from what the processor has; what is no number there must be none here.
    fn distance(&self, cache: &Cache, rows: &[Row], q: &[f32]) -> f32 {
        let width = cache.shape.heads * cache.shape.size;
        let mut far = 0.0_f32;
        for (i, &row) in rows.iter().enumerate() {
            let of = i * width..(i + 1) * width;
            let there = self.gpu.download::<f32>(self.out + 4 * of.start as u64, of.len());
            for (a, b) in there.iter().zip(cache.attend(&q[of], row)) {
                assert_eq!(a.is_nan(), b.is_nan(), "{row:?}");
                far = far.max((a - b).abs());
            }
        }
        far
    }

    /// With what the processor makes of queries that are turned.
    fn compare(&self, cache: &Cache, rows: &[Row], q: &[f32]) {
        let shape = cache.shape;
        let width = shape.heads * shape.size;
        for (i, &row) in rows.iter().enumerate().filter(|(_, row)| row.1 >= 0) {
            let of = i * width..(i + 1) * width;
            let there = self.gpu.download::<f32>(self.out + 4 * of.start as u64, of.len());
            assert_eq!(bits(&there), bits(&cache.attend(&q[of], row)), "{shape:?} {row:?}");
        }
    }
}
