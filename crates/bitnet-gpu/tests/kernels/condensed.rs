//! The greatest logits by a copy of the output layer in 8 bits: those that the whole of it gives.

use std::collections::BTreeSet;

use bitnet_kernels::op::{HeadArgs, HeadFn};
use bitnet_kernels::pool::Tile;
use bitnet_kernels::{Format, format};

use crate::gpu::{Args, Gpu, Random, bits, reference};
use crate::head::{Case, FORMATS};

/// An output layer, hidden states, and what is wanted of each.
struct Layer {
    format: Format,
    name: &'static str,
    table: Vec<u8>,
    rows: usize,
    cols: usize,
}

/// `Bounds` of `condensed.cu`: scale, norm, and the norm of what is lost.
type Bounds = [f32; 4];

/// The copy on a device.
struct Copied {
    table: u64,
    codes: u64,
    bounds: u64,
}

impl Layer {
    fn new((format, name): (Format, &'static str), numbers: &[f32], cols: usize) -> Layer {
        let table = format::narrow(format, numbers, cols).unwrap();
        Layer { format, name, table, rows: numbers.len() / cols, cols }
    }

    fn tiles(&self) -> usize {
        self.rows.div_ceil(16)
    }

    fn numbers(&self) -> Vec<f32> {
        let mut numbers = vec![0.0; self.rows * self.cols];
        let bytes = self.table.len() / self.rows;
        for (row, out) in self.table.chunks(bytes).zip(numbers.chunks_mut(self.cols)) {
            format::widen(self.format, row, out);
        }
        numbers
    }

    fn copied(&self, gpu: &mut Gpu) -> Copied {
        let table = gpu.upload(&self.table);
        let codes = gpu.room::<u8>(16 * self.tiles() * self.cols);
        let bounds = gpu.room::<f32>(4 * self.rows);
        let args = Args::default().with(table).with(codes).with(bounds);
        let args = args.with(self.rows as i32).with(self.cols as i32);
        let grid = [2 * self.tiles() as u32, 1, 1];
        gpu.launch(&format!("head_condense_{}", self.name), (grid, 256, 0), &args);
        Copied { table, codes, bounds }
    }

    /// All logits `[tokens, rows]`, by the processor.
    fn logits(&self, x: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0; x.len() / self.cols * self.rows];
        let head = reference().select::<HeadFn>(Some(self.format)).unwrap();
        let (weights, y_tile) = (&self.table, Tile::new(&mut y, self.rows));
        (head.run)(HeadArgs { weights, x, cols: self.cols, y: y_tile });
        y
    }
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

/// Numbers, bytes of them that are multiplied by a scale, and how long what these lose is said to be.
fn lost_is_so_much(x: &[f32], bytes: impl Iterator<Item = f64>, [scale, _, lost, _]: Bounds) {
    let lost_here = norm(x.iter().zip(bytes).map(|(x, q)| f64::from(*x) - f64::from(scale) * q));
    assert!(lost_here <= f64::from(lost), "{lost_here} and not {lost}");
    assert!(f64::from(lost) < 1.01 * lost_here + 1e-9, "{lost_here} and not {lost}");
}

#[test]
fn copies_lose_what_they_say() {
    for (target, format) in [("sm_61", FORMATS[0]), ("sm_80", FORMATS[1]), ("sm_80", FORMATS[2])] {
        let (rows, cols) = (37, 1056);
        let mut numbers = Random::new(4).floats(rows * cols);
        numbers[3 * cols..4 * cols].fill(0.0);
        numbers[5 * cols + 7] = 900.0;
        let layer = Layer::new(format, &numbers, cols);
        let mut gpu = Gpu::new(target);
        let copied = layer.copied(&mut gpu);
        let codes = gpu.download::<i8>(copied.codes, 16 * layer.tiles() * cols);
        let bounds = gpu.download::<f32>(copied.bounds, 4 * rows);
        let code = |row: usize, col: usize| {
            // As the fragments of `mma.m16n8k32` are.
            let lane = 4 * (row % 8) + col % 16 / 4;
            let word = 2 * (col % 32 / 16) + row % 16 / 8;
            let tile = row / 16 * (cols / 32) + col / 32;
            codes[512 * tile + 16 * lane + 4 * word + col % 4]
        };
        for (row, numbers) in layer.numbers().chunks(cols).enumerate() {
            let of: Bounds = bounds[4 * row..][..4].try_into().unwrap();
            lost_is_so_much(numbers, (0..cols).map(|col| f64::from(code(row, col))), of);
            let long = norm(numbers.iter().map(|x| f64::from(*x)));
            assert!(long <= f64::from(of[1]) && f64::from(of[1]) < 1.1 * long + 1e-9, "{of:?}");
        }
        for row in rows..16 * layer.tiles() {
            assert!((0..cols).all(|col| code(row, col) == 0), "row {row} is not there");
        }
    }
}

#[test]
fn hidden_states_lose_what_they_say() {
    for (target, cols) in [("sm_61", 32), ("sm_80", 544)] {
        let mut x = Random::new(5).floats(3 * cols);
        x[cols + 1] = 300.0;
        x[2 * cols..].fill(0.0);
        let mut gpu = Gpu::new(target);
        let [bytes, bounds] = [gpu.room::<u8>(6 * cols), gpu.room::<f32>(12)];
        let args = Args::default().with(gpu.upload(&x)).with(bytes).with(bounds).with(cols as i32);
        gpu.launch("head_quant_i8x2", ([3, 1, 1], 256, 0), &args);
        let (bytes, bounds) = (gpu.download::<i8>(bytes, 6 * cols), gpu.download(bounds, 12));
        for ((x, bytes), of) in x.chunks(cols).zip(bytes.chunks(2 * cols)).zip(bounds.chunks(4)) {
            let (high, low) = bytes.split_at(cols);
            let both = high.iter().zip(low).map(|(h, l)| 128.0 * f64::from(*h) + f64::from(*l));
            lost_is_so_much(x, both, of.try_into().unwrap());
            let long = norm(x.iter().map(|x| f64::from(*x)));
            assert!(long <= f64::from(of[1]) && f64::from(of[1]) < 1.01 * long + 1e-9, "{of:?}");
        }
    }
}

/// What is wanted of the logits of hidden states.
struct Wanted<'a> {
    x: &'a [f32],
    only: Option<&'a [u32]>,
    count: usize,
    /// Room for tokens, before all are looked at.
    most: usize,
}

/// What was found of a hidden state.
struct Found {
    /// Logits that were multiplied exactly.
    multiplied: usize,
    /// What was chosen of them.
    chosen: BTreeSet<(u32, u32)>,
}

fn found((target, scan): (&str, &str), layer: &Layer, wanted: &Wanted<'_>) -> Vec<Found> {
    let &Wanted { x, only, count, most } = wanted;
    let (rows, cols, tokens) = (layer.rows, layer.cols, x.len() / layer.cols);
    let exact = layer.logits(x);
    let mut gpu = Gpu::new(target);
    let Copied { table, codes, bounds } = layer.copied(&mut gpu);
    let bits_of: Vec<u32> = only.iter().flat_map(|only| only.repeat(tokens)).collect();
    let only = if only.is_some() { gpu.upload(&bits_of) } else { 0 };
    let (x_there, counts) = (gpu.upload(x), gpu.upload(&vec![count as i32; tokens]));
    let (bytes, x_bounds) = (gpu.room::<u8>(2 * tokens * cols), gpu.room::<f32>(4 * tokens));
    let args = Args::default().with(x_there).with(bytes).with(x_bounds).with(cols as i32);
    gpu.launch("head_quant_i8x2", ([tokens as u32, 1, 1], 256, 0), &args);

    let logits = gpu.room::<f32>(tokens * rows);
    let least = gpu.room::<f32>(tokens * layer.tiles());
    let args = Args::default().with(codes).with(bounds).with(bytes).with(x_bounds).with(only);
    let args = args.with(logits).with(least);
    let args = args.with(rows as i32).with(cols as i32).with(tokens as i32).end();
    let at_once = if scan.starts_with("gemm") { 64 } else { 8 };
    let grid = [layer.tiles().div_ceil(8) as u32, tokens.div_ceil(at_once) as u32, 1];
    gpu.launch(scan, (grid, 256, 0), &args);
    for (most, exact) in gpu.download::<f32>(logits, tokens * rows).iter().zip(&exact) {
        assert!(exact.is_nan() && *most == f32::INFINITY || most >= exact, "{exact} > {most}");
    }

    let [floor, listed] = [gpu.room::<u32>(tokens), gpu.room::<i32>(tokens)];
    let args = Args::default().with(least).with(counts).with(floor).with(listed);
    let args = args.with(layer.tiles() as i32);
    gpu.launch("head_floor", ([tokens as u32, 1, 1], 1024, 0), &args);

    let list = gpu.room::<u32>(tokens * most);
    let args = Args::default().with(table).with(x_there).with(logits).with(floor).with(only);
    let args = args.with(listed).with(list);
    let args = args.with(rows as i32).with(cols as i32).with(most as i32).end();
    let grid = [rows.div_ceil(256) as u32, tokens as u32, 1];
    gpu.launch(&format!("head_rerank_{}", layer.name), (grid, 256, 0), &args);
    // The same as all of the output layer gives, or less than any.
    let mut multiplied = vec![0; tokens];
    let there = bits(&gpu.download(logits, tokens * rows));
    for (i, (there, exact)) in there.iter().zip(bits(&exact)).enumerate() {
        let is_out = *there == f32::NEG_INFINITY.to_bits();
        assert!(is_out || *there == exact, "{i}: {there:x} and not {exact:x}");
        multiplied[i / rows] += usize::from(!is_out);
    }

    let (room, chosen) = (256, gpu.room::<i32>(tokens));
    let (ids, values) = (gpu.room::<u32>(tokens * room), gpu.room::<f32>(tokens * room));
    let listed_there = Args::default().with(list).with(listed).with(most as i32).end();
    let args = Args::default().with(logits).and(listed_there).with(only).with(counts);
    let args = args.with(chosen).with(ids).with(values).with(rows as i32).with(room as i32).end();
    gpu.launch("sample_topk", ([tokens as u32, 1, 1], 1024, 0), &args);
    let chosen = gpu.download::<i32>(chosen, tokens);
    let counted = gpu.download::<i32>(listed, tokens);
    (0..tokens)
        .map(|token| {
            let n = (chosen[token] as usize).min(room);
            let at = (token * room * 4) as u64;
            let ids = gpu.download::<u32>(ids + at, n);
            let values = bits(&gpu.download::<f32>(values + at, n));
            // Of a token whose numbers are at their least all are multiplied, and some are no less than that.
            assert!(counted[token] as usize >= multiplied[token], "token {token}");
            let multiplied = counted[token] as usize;
            Found { multiplied, chosen: ids.into_iter().zip(values).collect() }
        })
        .collect()
}

const SCANS: [(&str, &str); 4] = [
    ("sm_61", "gemv_head_i8_dp4a"),
    ("sm_80", "gemv_head_i8_mma"),
    ("sm_80", "gemm_head_i8_mma"),
    // What is for older devices runs on others too.
    ("sm_80", "gemv_head_i8_dp4a"),
];

/// What is found, and that it is what the whole output layer gives.
fn holds(scan: (&str, &str), layer: &Layer, wanted: &Wanted<'_>) -> Vec<usize> {
    let exact = layer.logits(wanted.x);
    let found = found(scan, layer, wanted);
    assert_eq!(found.len(), exact.len() / layer.rows);
    let each = found.into_iter().zip(exact.chunks(layer.rows)).enumerate();
    each.map(|(token, (Found { multiplied, chosen }, logits))| {
        let case = Case {
            logits: logits.to_vec(),
            only: wanted.only.map(<[u32]>::to_vec),
            count: wanted.count,
        };
        let context = format!("{scan:?}, {}, token {token}", layer.name);
        assert_eq!(chosen, case.expected(), "{context}");
        multiplied
    })
    .collect()
}

#[test]
fn the_greatest_logits_are_found_by_a_copy() {
    for (scan, format, (rows, cols), tokens, count) in [
        (SCANS[0], FORMATS[0], (1100, 64), 2, 1),
        (SCANS[0], FORMATS[0], (290, 352), 2, 1),
        (SCANS[0], FORMATS[1], (290, 352), 5, 1),
        (SCANS[3], FORMATS[1], (301, 352), 9, 2),
        (SCANS[0], FORMATS[2], (301, 352), 9, 3),
        (SCANS[1], FORMATS[2], (1100, 544), 3, 1),
        (SCANS[1], FORMATS[1], (301, 256), 10, 7),
        (SCANS[2], FORMATS[2], (301, 96), 70, 2),
        (SCANS[2], FORMATS[0], (520, 352), 9, 4),
    ] {
        let mut random = Random::new((rows + cols) as u64);
        let layer = Layer::new(format, &random.floats(rows * cols), cols);
        let x = random.floats(tokens * cols);
        let multiplied = holds(scan, &layer, &Wanted { x: &x, only: None, count, most: 128 });
        // That is what the copy is for.
        let most = multiplied.into_iter().max().unwrap();
        assert!(most >= count && most < 10 * count + rows / 20, "{most} of {rows}");
    }
}

/// Also where more logits may be among the greatest than there is room for in the list, and where few tokens count.
#[test]
fn what_counts_is_what_is_found() {
    let (rows, cols) = (420_usize, 64);
    let words = rows.div_ceil(32);
    let mut random = Random::new(9);
    let mut numbers = random.floats(rows * cols);
    // Some rows are equal.
    let (first, rest) = numbers.split_at_mut(cols);
    rest.chunks_mut(cols).step_by(9).for_each(|row| row.copy_from_slice(first));
    let near: Vec<f32> = random.floats(cols).iter().zip(&*first).map(|(x, w)| x + w).collect();
    let x = [near, random.floats(20 * cols)].concat();
    let some: Vec<u32> = (0..words).map(|i| 0x0040_0208 << (i % 3)).collect();
    let one: Vec<u32> = (0..words).map(|i| u32::from(i == 3) << 7).collect();
    let none = vec![0; words];
    for (scan, format) in [(SCANS[0], FORMATS[1]), (SCANS[1], FORMATS[0]), (SCANS[2], FORMATS[2])] {
        let layer = Layer::new(format, &numbers, cols);
        for (only, count, most) in [
            (None, 1, 4),
            (None, 60, 256),
            (Some(&some), 12, 16),
            (Some(&one), 5, 16),
            (Some(&none), 5, 16),
        ] {
            let only = only.map(Vec::as_slice);
            holds(scan, &layer, &Wanted { x: &x, only, count, most });
        }
    }
}

/// Rows and hidden states of which nothing can be known before they are multiplied.
#[test]
fn what_cannot_be_bounded_is_multiplied() {
    let (rows, cols) = (250, 64);
    let mut random = Random::new(11);
    let mut numbers = random.floats(rows * cols);
    let mut row = |at: usize, of: &dyn Fn(f32) -> f32| {
        numbers[at * cols..][..cols].iter_mut().for_each(|x| *x = of(*x));
    };
    row(17, &|x| x * 1e14);
    row(18, &|x| x * 1e-25);
    row(19, &|_| 0.0);
    row(20, &|_| -0.0);
    let mut x = random.floats(cols);
    let nothing = Wanted { x: &vec![0.0; cols], only: None, count: 3, most: 512 };
    let multiplied = holds(SCANS[1], &Layer::new(FORMATS[0], &numbers, cols), &nothing);
    assert_eq!(multiplied, [rows], "all are equal");
    (x[0], numbers[200 * cols]) = (1.0, f32::NEG_INFINITY);
    for (scan, format) in [(SCANS[0], FORMATS[0]), (SCANS[1], FORMATS[0]), (SCANS[2], FORMATS[2])] {
        let layer = Layer::new(format, &numbers, cols);
        for factor in [1.0, 1e-20, 1e14] {
            let x: Vec<f32> = x.iter().map(|x| x * factor).collect();
            for count in [1, 5] {
                let wanted = Wanted { x: &x, only: None, count, most: 512 };
                let multiplied = holds(scan, &layer, &wanted);
                assert_eq!(multiplied[0] == rows, factor != 1.0, "{factor}: {multiplied:?}");
            }
        }
    }
    // What is no number is greater than all.
    numbers[40 * cols] = f32::NAN;
    let layer = Layer::new(FORMATS[0], &numbers, cols);
    for scan in SCANS {
        let wanted = Wanted { x: &x, only: None, count: 1, most: 512 };
        let Found { chosen, .. } = found(scan, &layer, &wanted).remove(0);
        assert_eq!(chosen, [(40, f32::NAN.to_bits())].into(), "{scan:?}");
    }
}

#[test]
fn logits_at_places_are_those_of_the_whole() {
    let (rows, cols) = (90, 352);
    let mut random = Random::new(13);
    let numbers = random.floats(rows * cols);
    let x = random.floats(2 * cols);
    let places: Vec<u32> = (0..21).map(|i| i * 37 % 90 + 90 * (i % 2)).collect();
    let targets = ["sm_61", "sm_80"].into_iter();
    for (target, format) in targets.flat_map(|target| FORMATS.map(|format| (target, format))) {
        let layer = Layer::new(format, &numbers, cols);
        let exact = layer.logits(&x);
        let expected: Vec<f32> = places.iter().map(|place| exact[*place as usize]).collect();
        let mut gpu = Gpu::new(target);
        let out = gpu.room::<f32>(places.len());
        let args = Args::default().with(gpu.upload(&layer.table)).with(gpu.upload(&x));
        let args = args.with(gpu.upload(&places)).with(out).with(places.len() as i32);
        let args = args.with(rows as i32).with(cols as i32);
        gpu.launch(&format!("head_rerank_at_{}", layer.name), ([2, 1, 1], 256, 0), &args);
        let there = gpu.download(out, places.len());
        assert_eq!(bits(&there), bits(&expected), "{}", layer.name);
    }
}
