//! The shortlist finds exactly the greatest logits of the whole output layer, whatever the rows.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

use bitnet_kernels::op::{HeadArgs, HeadFn};
use bitnet_kernels::pool::Tile;
use bitnet_kernels::shortlist::{Candidate, Layer, Query, Search, Shortlist, ShortlistError};
use bitnet_kernels::{Bound, Calls, Cpu, Format, Isa, KernelManager, Operation, Pool, format};
use proptest::prelude::*;

const COLS: usize = 256;

/// Numbers in `-1..1`, bell-shaped enough.
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| (next() + next() + next()) / 1.5).collect()
}

struct Case {
    format: Format,
    weights: Vec<u8>,
    rows: usize,
    list: Shortlist,
    head: Bound<HeadFn>,
    pool: Pool,
}

impl Case {
    fn new(format: Format, numbers: &[f32], manager: &KernelManager) -> Case {
        Case::of(format, format::narrow(format, numbers, COLS).unwrap(), manager)
    }

    fn of(format: Format, weights: Vec<u8>, manager: &KernelManager) -> Case {
        let rows = weights.len() / format.row_bytes(COLS).unwrap();
        let pool = Pool::new(2.try_into().unwrap()).unwrap();
        let list = Shortlist::new((format, &weights), (rows, COLS), manager, &pool).unwrap();
        Case { format, weights, rows, list, head: manager.select(Some(format)).unwrap(), pool }
    }

    fn all(&self, x: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0; self.rows];
        let tile = Tile::new(&mut y, self.rows);
        (self.head.run)(HeadArgs { weights: &self.weights, x, cols: COLS, y: tile });
        y
    }

    /// Checks the `k` greatest, and gives the number of rows multiplied exactly. Searches for others at
    /// the same time.
    fn check(&self, x: &[f32], k: usize, also: &[u32]) -> usize {
        self.check_only(x, k, also, None)
    }

    /// As [`Case::check`], of some rows.
    fn check_only(&self, x: &[f32], k: usize, also: &[u32], only: Option<&[u32]>) -> usize {
        let (mut search, mut calls) = (Search::default(), Calls::default());
        let layer = Layer { weights: &self.weights, head: &self.head };
        let (other, opposite) = (noise(97, COLS), x.iter().map(|x| -x).collect::<Vec<_>>());
        let queries = [
            Query { x: &other, k: 3, also: &[], only: None },
            Query { x, k, also, only },
            Query { x: &opposite, k: 1, also: &[], only: None },
        ];
        assert!(self.list.best(layer, &queries, (&self.pool, &mut search, &mut calls)));
        self.check_found(queries[0], search.found(0));
        self.check_found(queries[2], search.found(2));
        let rows = self.check_found(queries[1], search.found(1));
        // Alone it finds the same.
        assert!(self.list.best(layer, &queries[1..2], (&self.pool, &mut search, &mut calls)));
        assert_eq!(self.check_found(queries[1], search.found(0)), rows);
        rows
    }

    /// Checks what a query found, and gives the number of rows.
    fn check_found(&self, query: Query<'_>, found: &[Candidate]) -> usize {
        let Query { x, k, also, only } = query;
        let all = self.all(x);
        let can_be = |id: u32| {
            let word = |words: &[u32]| words.get(id as usize / 32).copied().unwrap_or(0);
            only.is_none_or(|words| word(words) >> (id % 32) & 1 == 1)
        };
        let also: Vec<_> = also.iter().copied().filter(|&id| can_be(id)).collect();
        let mut ids: Vec<_> = found.iter().map(|found| found.id).collect();
        ids.sort_unstable();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "a row twice");
        assert!(also.iter().all(|id| ids.binary_search(id).is_ok()), "a row asked for is missing");
        assert!(ids.iter().all(|&id| can_be(id)), "a row that cannot be");
        for found in found {
            let want = all[found.id as usize];
            let same = found.logit.to_bits() == want.to_bits();
            assert!(same || found.logit.is_nan() && want.is_nan(), "{found:?}, not {want}");
        }
        let others = (0..self.rows as u32).filter(|&id| can_be(id) && !also.contains(&id));
        let mut others: Vec<_> = others.collect();
        if others.is_empty() {
            return found.len();
        }
        others.sort_by(|&a, &b| all[b as usize].total_cmp(&all[a as usize]));
        let least = all[others[k.min(others.len()) - 1] as usize];
        for id in others {
            let logit = all[id as usize];
            let there = ids.binary_search(&id).is_ok();
            assert!(there || logit < least, "{}: row {id} with {logit} is missing", self.format);
        }
        found.len()
    }
}

/// Rows in `format`. IQ2_S takes long to write: there an eighth of them is, and then again with other
/// signs, as rows of their own.
fn narrowed(format: Format, numbers: &[f32]) -> Vec<u8> {
    let rows = numbers.len() / COLS;
    let written = if format == Format::Iq2S { rows.div_ceil(8) } else { rows };
    let mut weights = format::narrow(format, &numbers[..written * COLS], COLS).unwrap();
    let row_bytes = weights.len() / written;
    for row in written..rows {
        let start = row % written * row_bytes;
        weights.extend_from_within(start..start + row_bytes);
        // A row is a block, of which these bytes are signs.
        for (i, signs) in weights[row * row_bytes..][34..66].iter_mut().enumerate() {
            *signs ^= (row / written * (2 * i + 77)) as u8;
        }
    }
    weights
}

#[test]
fn greatest_logits_are_found_in_every_format_and_on_every_instruction_set() {
    let cpu = Cpu::detect();
    let numbers = noise(1, 1203 * COLS);
    for format in Format::FLOAT {
        let weights = narrowed(format, &numbers);
        for &isa in cpu.isas() {
            // The other formats differ in how rows are read only.
            if format != Format::F16 && isa != Isa::Scalar && isa != *cpu.isas().last().unwrap() {
                continue;
            }
            let manager = KernelManager::new().limit(isa).unwrap();
            let case = Case::of(format, weights.clone(), &manager);
            for (seed, k) in [(2, 1), (3, 5), (4, 40)] {
                let exact = case.check(&noise(seed, COLS), k, &[7, 1199]);
                assert!(exact < 600, "{format}: {exact} rows of 1203");
            }
        }
    }
}

#[test]
fn only_some_rows_are_looked_for() {
    let case = Case::new(Format::F16, &noise(1, 4100 * COLS), &KernelManager::new());
    let x = noise(2, COLS);
    // Every second row; those of a few panels; two rows; rows there are not; as many as are wanted.
    let half = vec![0x5555_5555; 129];
    let panels = [&[0; 70][..], &[u32::MAX; 9], &[0; 50]].concat();
    let two = [vec![1], vec![0; 100], vec![1 << 31]].concat();
    let beyond = [vec![0; 128], vec![!0b1111]].concat();
    for (only, most) in [(half, 600), (panels, 9 * 32), (two, 2), (beyond, 0), (vec![0b111], 3)] {
        for (k, also) in [(1, &[][..]), (3, &[70 * 32 + 1, 0, 33]), (40, &[4099])] {
            let exact = case.check_only(&x, k, also, Some(&only));
            assert!(exact <= most, "{exact} rows, not {most}");
        }
    }
    // Where there are few, nothing is scanned, and hidden states can be of any size.
    let (mut search, mut calls) = (Search::default(), Calls::default());
    let layer = Layer { weights: &case.weights, head: &case.head };
    let query = Query { x: &[1e34; COLS], k: 1, also: &[], only: Some(&[0b1010]) };
    assert!(case.list.best(layer, &[query], (&case.pool, &mut search, &mut calls)));
    assert_eq!(search.read(), 2 * 2 * COLS as u64);
    assert!(calls.iter().all(|(kernel, _)| kernel.operation() == Operation::Head), "{calls:?}");
}

#[test]
fn rows_that_look_alike_are_told_apart() {
    // Steps far below what 5 or 7 bits see, many of them equal.
    let base = noise(5, COLS);
    let mut numbers = Vec::new();
    for row in 0..1100 {
        let change = (row / 7 * 37 % 300) as f32 * 1e-6;
        numbers.extend(base.iter().enumerate().map(|(i, x)| x + change * (i % 3) as f32));
    }
    let case = Case::new(Format::F32, &numbers, &KernelManager::new());
    for (x, k) in [(base, 1), (noise(6, COLS), 40)] {
        case.check(&x, k, &[]);
    }
}

#[test]
fn rows_against_the_copy_are_not_lost() {
    // The hidden state is what 5 bits lose of one row: its logit is all loss.
    let mut numbers = noise(7, 1100 * COLS);
    let row = numbers[700 * COLS..701 * COLS].to_vec();
    let lost: Vec<f32> = row
        .chunks(32)
        .flat_map(|x| {
            let step = x.iter().fold(0.0, |most: f32, x| most.max(x.abs())) / 15.5;
            x.iter().map(move |x| x - ((x / step + 15.5).round() - 15.5) * step)
        })
        .collect();
    // Nothing of it shows in the copy of that row.
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let copy: Vec<f32> = row.iter().zip(&lost).map(|(x, lost)| x - lost).collect();
    let shown = product(&copy, &lost) / product(&copy, &copy);
    let lost: Vec<f32> = lost.iter().zip(&copy).map(|(lost, x)| lost - shown * x).collect();
    // Others come near, with numbers that the copy sees.
    let (most, square) = (product(&row, &lost), product(&lost, &lost));
    for (i, other) in numbers.chunks_mut(COLS).enumerate().filter(|(i, _)| *i != 700) {
        let more = (most * (0.95 - (i % 5) as f32 * 0.1) - product(other, &lost)) / square;
        other.iter_mut().zip(&lost).for_each(|(a, b)| *a += more * b);
    }
    let case = Case::new(Format::F32, &numbers, &KernelManager::new());
    case.check(&lost, 1, &[]);
    case.check(&lost.iter().map(|x| -x).collect::<Vec<_>>(), 3, &[]);
}

#[test]
fn rows_and_hidden_states_of_any_size() {
    let mut numbers = noise(8, 1200 * COLS);
    for (row, factor) in [(1, 0.0), (2, 1e-38), (3, 1e30), (4, -1e30), (40, 1e-20), (1199, 1e10)] {
        numbers[row * COLS..(row + 1) * COLS].iter_mut().for_each(|x| *x *= factor);
    }
    let case = Case::new(Format::F32, &numbers, &KernelManager::new());
    let mut outlier = noise(9, COLS);
    outlier[77] = 1e6;
    for x in [outlier, vec![0.0; COLS], vec![1e-12; COLS], vec![1e5; COLS], noise(10, COLS)] {
        case.check(&x, 1, &[]);
        case.check(&x, 40, &[0]);
    }
    // More than there are.
    case.check(&noise(11, COLS), 1199, &[]);
    case.check(&noise(11, COLS), usize::MAX, &[]);
}

/// Hidden states of which products may leave the range of normal numbers: nothing is ruled out.
#[test]
fn hidden_states_that_are_too_great_or_small_are_left_to_the_whole_layer() {
    let case = Case::new(Format::F32, &noise(14, 1200 * COLS), &KernelManager::new());
    let (mut search, mut calls) = (Search::default(), Calls::default());
    let layer = Layer { weights: &case.weights, head: &case.head };
    for (x, looked) in [(1e-45, false), (1e-20, false), (1.0, true), (1e20, false), (1e34, false)] {
        let work = (&case.pool, &mut search, &mut calls);
        let query = Query { x: &[x; COLS], k: 1, also: &[], only: None };
        assert_eq!(case.list.best(layer, &[query], work), looked, "{x}");
    }
}

/// Sums of products over the greatest number, and under the least normal one.
#[test]
fn rows_that_are_too_great_or_small_are_not_ruled_out() {
    // In the last, squares of what codes lose vanish, and with them the bound.
    let cases = [(1e27, 1e10), (3e-20, 1e-11), (1e-38, 1.0), (3e38, 1e-3), (1e-24, 1.0)];
    for (most, x) in cases {
        let mut numbers = noise(15, 1200 * COLS);
        numbers.iter_mut().for_each(|number| *number *= most);
        Case::new(Format::F32, &numbers, &KernelManager::new()).check(&[x; COLS], 3, &[]);
        // Rows so alike that their codes say nothing about which is best.
        let alike = noise(16, COLS);
        let alike = numbers
            .iter()
            .zip(alike.iter().cycle())
            .map(|(number, one)| number * 0.01 + one * most);
        let alike: Vec<_> = alike.collect();
        Case::new(Format::F32, &alike, &KernelManager::new()).check(&[x; COLS], 3, &[]);
        // The best row is less than nothing in its first group, and more in the others.
        numbers[..COLS].fill(most);
        numbers[..32].fill(-most);
        Case::new(Format::F32, &numbers, &KernelManager::new()).check(&[x; COLS], 3, &[]);
    }
}

#[test]
fn what_is_not_finite_is_not_hidden() {
    let mut numbers = noise(12, 1100 * COLS);
    numbers[100 * COLS + 3] = f32::NAN;
    numbers[200 * COLS + 3] = f32::INFINITY;
    let case = Case::new(Format::F32, &numbers, &KernelManager::new());
    let (mut search, mut calls) = (Search::default(), Calls::default());
    let layer = Layer { weights: &case.weights, head: &case.head };
    let x = noise(13, COLS);
    let query = |x| Query { x, k: 1, also: &[], only: None };
    assert!(case.list.best(layer, &[query(&x[..])], (&case.pool, &mut search, &mut calls)));
    let not_finite = search.found(0).iter().filter(|found| !found.logit.is_finite());
    assert_eq!(not_finite.count(), 2);
    // One hidden state that is not finite is enough.
    let y = [&x[1..], &[f32::NAN]].concat();
    let queries = [query(&x[..]), query(&y)];
    assert!(!case.list.best(layer, &queries, (&case.pool, &mut search, &mut calls)));
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let manager = KernelManager::new();
    let pool = Pool::alone();
    let weights = vec![0; 1100 * 48 * 4];
    let error = Shortlist::new((Format::F32, &weights), (1100, 48), &manager, &pool).unwrap_err();
    assert!(matches!(error, ShortlistError::Format(_)), "{error:?}");
    assert!(Shortlist::new((Format::F32, &weights[1..]), (1100, 32), &manager, &pool).is_err());
    assert!(Shortlist::new((Format::F32, &[]), (0, 32), &manager, &pool).is_ok());
    assert!(Shortlist::suits(4096, 256) && !Shortlist::suits(512, 256));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn greatest_logits_are_found(
        seed in any::<u64>(),
        rows in 1..300_usize,
        k in 1..50_usize,
        power in -8..8_i32,
        also in proptest::collection::vec(0..300_u32, 0..5),
        only in proptest::option::of(proptest::collection::vec(any::<u32>(), 0..11)),
    ) {
        let mut numbers = noise(seed, rows * COLS);
        // Rows of different sizes.
        for (row, numbers) in numbers.chunks_mut(COLS).enumerate() {
            let factor = 2.0_f32.powi(power * (row % 3) as i32);
            numbers.iter_mut().for_each(|x| *x *= factor);
        }
        let case = Case::new(Format::F16, &numbers, &KernelManager::new());
        let mut also: Vec<_> = also.into_iter().filter(|&id| (id as usize) < rows).collect();
        also.dedup();
        prop_assume!(also.len() < rows);
        case.check_only(&noise(seed ^ 1, COLS), k, &also, only.as_deref());
    }
}
