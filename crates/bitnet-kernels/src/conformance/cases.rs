//! Inputs for each operation: random, worst, ragged, unaligned, with guards around outputs.

use super::reference;
use crate::format::{self, Format};
use crate::op::{
    ABSMEAN_BLOCK, AbsmeanArgs, AbsmeanFn, AddArgs, AddFn, GateArgs, HeadArgs, HeadFn, MatmulArgs,
    MatmulFn, NormArgs, NormFn, PeakArgs, PeakFn, QuantizeArgs, QuantizeFn, ReadArgs, ReadFn,
    RopeArgs, RopeFn, RowScale, SoftmaxArgs, SoftmaxFn, TernarizeArgs, TernarizeFn, TernaryScale,
};
use crate::pool::Tile;

/// Miri takes a microsecond for a step: under it cases are as small as they can be.
pub(super) const SMALL: bool = cfg!(miri);

/// Lengths of vectors: none of a register, part of one, several and a part.
const LENGTHS: [usize; 8] = [1, 7, 15, 16, 17, 50, 256, if SMALL { 71 } else { 2567 }];

pub(super) type Outcome = Result<(), String>;

/// Xorshift: the same cases on every machine.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new() -> Random {
        Random(0x9E37_79B9_7F4A_7C15)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Uniform in `0..n`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }

    pub(super) fn trits(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| self.below(3) as i8 - 1).collect()
    }

    pub(super) fn bytes(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| self.below(256) as u8 as i8).collect()
    }

    /// Of both signs, over some magnitudes.
    pub(super) fn floats(&mut self, n: usize) -> Vec<f32> {
        let mut float = || {
            let unit = self.below(1 << 24) as f32 / (1 << 23) as f32 - 1.0;
            unit * [0.01, 1.0, 1.0, 30.0][self.below(4) as usize]
        };
        (0..n).map(|_| float()).collect()
    }
}

/// A copy at an odd address.
pub(super) struct Unaligned {
    memory: Vec<u8>,
    start: usize,
}

impl Unaligned {
    pub(super) fn new(bytes: &[u8]) -> Unaligned {
        let mut memory = vec![0; bytes.len() + 1];
        let start = 1 - memory.as_ptr().addr() % 2;
        memory[start..][..bytes.len()].copy_from_slice(bytes);
        memory.truncate(start + bytes.len());
        Unaligned { memory, start }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..]
    }
}

/// Runs `f` on an output with guards on both sides, and checks what it wrote.
pub(super) fn guarded(n: usize, want: &[f32], f: impl FnOnce(&mut [f32])) -> Outcome {
    const GUARD: usize = 24;
    let mut out = vec![f32::from_bits(0xDEAD_BEEF); n + 2 * GUARD];
    f(&mut out[GUARD..GUARD + n]);
    let (front, rest) = out.split_at(GUARD);
    let (got, back) = rest.split_at(n);
    if front.iter().chain(back).any(|x| x.to_bits() != 0xDEAD_BEEF) {
        return Err("wrote outside its output".to_owned());
    }
    same(got, want)
}

pub(super) fn same(got: &[f32], want: &[f32]) -> Outcome {
    // Which NaN it is means nothing.
    let differs = |(got, want): (&f32, &f32)| {
        got.to_bits() != want.to_bits() && !(got.is_nan() && want.is_nan())
    };
    match got.iter().zip(want).position(differs) {
        _ if got.len() != want.len() => Err(format!("{} results, not {}", got.len(), want.len())),
        None => Ok(()),
        Some(i) => Err(format!("result {i} is {:e}, not {:e}", got[i], want[i])),
    }
}

/// `outcome`, with the case it belongs to.
pub(super) fn case(outcome: Outcome, what: impl FnOnce() -> String) -> Outcome {
    outcome.map_err(|error| format!("{}: {error}", what()))
}

pub(super) fn head(run: HeadFn, format: Format) -> Outcome {
    let mut random = Random::new();
    let wide = if SMALL { 256 } else { 2560 };
    for (rows, cols, tokens) in [(1, 256, 1), (4, 512, 3), (7, 768, 2), (13, wide, 1)] {
        let row_bytes = format.row_bytes(cols).map_err(|e| e.to_string())?;
        let weights = Unaligned::new(&float_rows(format, rows, row_bytes, &mut random));
        let x = random.floats(tokens * cols);
        let table: Vec<_> =
            weights.bytes().chunks(row_bytes).map(|row| reference::widen(format, row)).collect();
        let mut want = Vec::new();
        for x in x.chunks(cols) {
            want.extend(table.iter().map(|row| reference::dot(row, x)));
        }
        let got = guarded(tokens * rows, &want, |y| {
            let y = Tile::new(y, rows);
            run(HeadArgs { weights: weights.bytes(), x: &x, cols, y });
        });
        case(got, || format!("{rows} x {cols}, {tokens} tokens"))?;

        let mut widened = vec![0.0; cols];
        format::widen(format, &weights.bytes()[..row_bytes], &mut widened);
        case(same(&widened, &table[0]), || format!("widening a row of {cols}"))?;
    }
    Ok(())
}

/// Random bytes of a format whose numbers are finite.
pub(super) fn float_rows(
    format: Format,
    rows: usize,
    row_bytes: usize,
    random: &mut Random,
) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        random.bytes(rows * row_bytes).into_iter().map(i8::cast_unsigned).collect();
    let (_, block) = format.block();
    for block in bytes.chunks_mut(block) {
        match format {
            // Exponents that are not all ones, and not so great that sums overflow.
            Format::F32 => block.chunks_mut(4).for_each(|b| b[3] = b[3] & 0x80 | 0x3E),
            Format::Bf16 => block.chunks_mut(2).for_each(|b| b[1] = b[1] & 0x80 | 0x3E),
            Format::F16 => block.chunks_mut(2).for_each(|b| b[1] &= 0xBF),
            Format::Q4K => [1, 3].into_iter().for_each(|i| block[i] &= 0xBF),
            Format::Q8_0 | Format::Iq2S | Format::Q4_0 | Format::Q2_0 | Format::Q2_0G128 => {
                block[1] &= 0xBF;
            }
            _ => block[209] &= 0xBF,
        }
    }
    bytes
}

pub(super) fn quantize(run: QuantizeFn) -> Outcome {
    let mut random = Random::new();
    for n in LENGTHS {
        let halves: Vec<f32> = (0..n).map(|i| i as f32 % 127.0 - 63.5).collect();
        let zeros = vec![0.0; n];
        let last = |x| [vec![0.5; n - 1], vec![x]].concat();
        let not_finite = [last(f32::NAN), last(f32::INFINITY), vec![f32::NEG_INFINITY; n]];
        let finite = [random.floats(n), halves, zeros, last(127.0), last(f32::MAX)];
        for x in finite.into_iter().chain(not_finite) {
            let (want, want_scale) = reference::quantize(&x);
            let (mut q, mut scale) = (vec![99; n + 32], RowScale::default());
            run(QuantizeArgs { x: &x, q: &mut q[16..16 + n], scale: &mut scale });
            let guards = q[..16].iter().chain(&q[16 + n..]).all(|&q| q == 99);
            let bits = |scale: RowScale| (scale.scale.to_bits(), scale.sum);
            if !guards || q[16..16 + n] != want || bits(scale) != bits(want_scale) {
                return Err(format!("{n} activations"));
            }
        }
    }
    Ok(())
}

pub(super) fn norm(run: NormFn) -> Outcome {
    let mut random = Random::new();
    for n in LENGTHS {
        for x in [random.floats(n), vec![0.0; n], vec![1e20; n]] {
            let weight = random.floats(n);
            let want = reference::norm(&x, &weight, 1e-5);
            let got = guarded(n, &want, |y| {
                run(NormArgs { x: &x, weight: &weight, eps: 1e-5, y });
            });
            case(got, || format!("{n} numbers"))?;
        }
    }
    Ok(())
}

pub(super) fn rope(run: RopeFn) -> Outcome {
    let mut random = Random::new();
    for (heads, half) in [(1, 16), (3, 32), (2, 64), (5, 48), (2, 50), (1, 7)] {
        let (x, n) = (random.floats(heads * 2 * half), heads * 2 * half);
        let (cos, sin) = (random.floats(half), random.floats(half));
        let got = guarded(n, &reference::rope(&x, &cos, &sin), |out| {
            out.copy_from_slice(&x);
            run(RopeArgs { x: out, cos: &cos, sin: &sin });
        });
        case(got, || format!("{heads} heads of {}", 2 * half))?;
    }
    Ok(())
}

pub(super) fn softmax(run: SoftmaxFn) -> Outcome {
    let mut random = Random::new();
    for n in LENGTHS {
        let far: Vec<f32> = (0..n).map(|i| i as f32 * -3.0).collect();
        for x in [random.floats(n), far, vec![-5.5; n]] {
            let got = guarded(n, &reference::softmax(&x), |out| {
                out.copy_from_slice(&x);
                run(SoftmaxArgs { x: out });
            });
            case(got, || format!("{n} numbers"))?;
        }
    }
    Ok(())
}

pub(super) fn gate<G: Copy>(
    run: for<'a> fn(GateArgs<'a, G>),
    by: G,
    activation: fn(f32) -> f32,
) -> Outcome {
    let mut random = Random::new();
    for n in LENGTHS {
        let (mut gate, up) = (random.floats(n), random.floats(n));
        let special =
            [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 0.0, -88.5, 88.5, -1e30, f32::MAX];
        gate.iter_mut().zip(special).for_each(|(gate, special)| *gate = special);
        let got = guarded(n, &reference::gate(activation, &gate, &up), |out| {
            out.copy_from_slice(&gate);
            run(GateArgs { gate: out, up: &up, by });
        });
        case(got, || format!("{n} numbers"))?;
    }
    Ok(())
}

pub(super) fn add(run: AddFn) -> Outcome {
    let mut random = Random::new();
    for n in LENGTHS {
        let (x, y) = (random.floats(n), random.floats(n));
        let got = guarded(n, &reference::add(&x, &y), |out| {
            out.copy_from_slice(&x);
            run(AddArgs { x: out, y: &y });
        });
        case(got, || format!("{n} numbers"))?;
    }
    Ok(())
}

/// It must do the work that it counts: with every operand 1, sums are the number of products.
pub(super) fn peak(run: PeakFn) -> Outcome {
    let (mut few, mut many) = (0, 0);
    run(PeakArgs { repeats: 64, products: &mut few });
    run(PeakArgs { repeats: 640, products: &mut many });
    match few > 0 && many == 10 * few {
        true => Ok(()),
        false => Err(format!("{few} products, then {many}")),
    }
}

/// It must read every number once: the sum of small integers is exact in any order.
pub(super) fn read(run: ReadFn) -> Outcome {
    let mut random = Random::new();
    for n in [0, 1, 15, 16, 63, 64, 65, 127, 128, 1000, 4099] {
        let data: Vec<f32> = (0..n).map(|_| random.below(1000) as f32).collect();
        let mut sum = f32::NAN;
        run(ReadArgs { data: &data, sum: &mut sum });
        let want = data.iter().fold(0.0, |sum, x| sum + x);
        case(same(&[sum], &[want]), || format!("{n} numbers"))?;
    }
    Ok(())
}

pub(super) fn absmean(run: AbsmeanFn) -> Outcome {
    let mut random = Random::new();
    for n in LENGTHS.into_iter().chain([ABSMEAN_BLOCK, 3 * ABSMEAN_BLOCK + 21]) {
        let finite = random.floats(n);
        let not = |x| [&finite[1..], &[x]].concat();
        for x in [not(f32::NAN), not(f32::NEG_INFINITY), finite] {
            let got = guarded(n.div_ceil(ABSMEAN_BLOCK), &reference::absolute_sums(&x), |sums| {
                run(AbsmeanArgs { x: &x, sums });
            });
            case(got, || format!("{n} numbers"))?;
        }
    }
    Ok(())
}

pub(super) fn ternarize(run: TernarizeFn, format: Option<Format>) -> Outcome {
    let mut random = Random::new();
    for n in LENGTHS.into_iter().chain([128, 384, 640]) {
        // Around every place where rounding turns, with a mean of 1 that is exact.
        let turns = [0.5, 0.500_000_06, 0.499_999_97, 1.5, 1.499_999_9, 2.5, 0.0, -0.0, f32::MAX];
        let signs = [1.0, -1.0];
        let near = (0..n).map(|i| turns[i / 2 % 9] * signs[i % 2]).collect();
        let floats = random.floats(n);
        let sums = [reference::absolute_sums(&floats), vec![n as f32], vec![0.0]];
        for (x, sums) in [floats, near, vec![0.0; n]].into_iter().zip(sums) {
            let scale = TernaryScale::new(&sums, n).ok_or("no scale")?;
            let mut want = reference::ternarize(&x, &sums);
            if let Some(format) = format {
                want.resize(n.next_multiple_of(128), 0);
                let (cols, fail) = (want.len(), |e: format::FormatError| e.to_string());
                let bytes = format::encode(format, &want, 1, cols, 1.0).map_err(fail)?;
                want = bytes[..cols / 4].iter().map(|byte| byte.cast_signed()).collect();
            } else {
                want.iter_mut().for_each(|t| *t += 1);
            }
            let mut got = vec![99; want.len() + 32];
            let end = 16 + want.len();
            run(TernarizeArgs { x: &x, scale, codes: &mut got[16..end] });
            let guards = got[..16].iter().chain(&got[end..]).all(|&byte| byte == 99);
            if !guards || got[16..end].iter().map(|byte| byte.cast_signed()).ne(want) {
                return Err(format!("{n} weights"));
            }
        }
    }
    Ok(())
}

pub(super) fn matmul(run: MatmulFn) -> Outcome {
    let mut random = Random::new();
    for shape in [[1, 1, 1], [2, 3, 255], [4, 32, 256], [7, 65, 300], [3, 31, 1024]] {
        let [m, n, k] = shape;
        // Random, and the greatest and the least sums.
        let cases =
            [(None, None), (Some(127), Some(2)), (Some(-128), Some(2)), (Some(-128), Some(0))];
        for (x, code) in cases {
            let a = x.map_or_else(|| random.bytes(m * k), |x| vec![x; m * k]);
            let b: Vec<u8> = code.map_or_else(
                || random.bytes(k * n).into_iter().map(i8::cast_unsigned).collect(),
                |code| vec![code; k * n],
            );
            let got = guarded(m * n, &reference::matmul(&a, &b, shape), |c| {
                run(MatmulArgs { a: &a, b: &b, c, shape });
            });
            case(got, || format!("{m} x {k} times {k} x {n}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unaligned_copies_are_unaligned_copies() {
        for n in 0..70 {
            let bytes: Vec<u8> = (0..n).collect();
            let copy = Unaligned::new(&bytes);
            assert_eq!(copy.bytes(), bytes);
            assert_eq!(copy.bytes().as_ptr().addr() % 2, 1);
        }
    }

    #[test]
    fn a_kernel_that_is_wrong_in_one_bit_or_place_is_caught() {
        fn off_by_a_bit(args: AddArgs<'_>) {
            for (x, y) in args.x.iter_mut().zip(args.y) {
                *x += y;
            }
            args.x[0] = f32::from_bits(args.x[0].to_bits() ^ 1);
        }
        assert!(add(off_by_a_bit).unwrap_err().contains("1 numbers: result 0"));

        let overrun = guarded(4, &[0.0; 4], |y| y.fill(1.0)).unwrap_err();
        assert!(overrun.contains("result 0"), "{overrun}");
    }
}
