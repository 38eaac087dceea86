//! Cases of attention, and of what its cache holds.

use half::f16;

use super::cases::{Outcome, Random, case, guarded};
use super::reference;
use crate::aligned::Aligned;
use crate::format::{Format, widen};
use crate::op::{
    AttendArgs, AttendFn, JoinArgs, JoinFn, KV_BLOCK, Keys, Place, StoreArgs, StoreFn, part,
};
use crate::pool::Pool;

/// Numbers of a format that `n` numbers are, filled up.
fn filled(format: Format, n: usize) -> usize {
    n.next_multiple_of(format.block().0)
}

/// The bytes of some numbers.
fn stored(format: Format, x: &[f32]) -> Result<Vec<u8>, String> {
    let mut x = x.to_vec();
    x.resize(filled(format, x.len()), 0.0);
    reference::store(format, &x).ok_or_else(|| format!("{format} is not stored"))
}

/// Keys and values of one head, among those of others, in a cache whose blocks lie about.
struct Cache {
    blocks: Vec<Aligned<u8>>,
    /// Where keys and values start in a block.
    starts: [usize; 2],
    /// Bytes of a position.
    stride: usize,
    /// Key and value of each position.
    kv: Vec<[Vec<f32>; 2]>,
}

impl Cache {
    const TABLE: [u32; 4] = [3, 0, 4, 2];
    /// Those behind are NaN, as what a cache held before may be.
    const POSITIONS: usize = 57;

    /// The last of some heads.
    fn random(
        random: &mut Random,
        format: Format,
        size: usize,
        heads: usize,
    ) -> Result<Cache, String> {
        let stride = stored(format, &vec![0.0; size])?.len();
        let part = KV_BLOCK * stride;
        let starts = [(heads - 1) * part, (2 * heads - 1) * part];
        let mut blocks = Vec::new();
        for _ in 0..5 {
            let mut block = Aligned::zeros(2 * heads * part).map_err(|error| error.to_string())?;
            // What is not this head's is NaN in every format.
            block.fill(0xFF);
            blocks.push(block);
        }
        let mut kv = Vec::new();
        for index in Cache::TABLE {
            let mut rows = || {
                let mut numbers = |i| {
                    if i < Cache::POSITIONS { random.floats(size) } else { vec![f32::NAN; size] }
                };
                (kv.len()..kv.len() + KV_BLOCK).map(|i| stored(format, &numbers(i))).collect()
            };
            let (keys, values): (Result<Vec<_>, _>, Result<Vec<_>, _>) = (rows(), rows());
            let (keys, values) = (keys?, values?);
            let block = &mut blocks[index as usize];
            block[starts[0]..][..part].copy_from_slice(&reference::side_by_side(format, &keys));
            block[starts[1]..][..part].copy_from_slice(&values.concat());
            kv.extend(
                keys.iter()
                    .zip(&values)
                    .map(|(key, value)| [key, value].map(|row| reference::widen(format, row))),
            );
        }
        Ok(Cache { blocks, starts, stride, kv })
    }

    fn keys(&self) -> Keys<'_> {
        let [keys, values] = self.starts;
        Keys { blocks: &self.blocks, table: &Cache::TABLE, keys, values, stride: self.stride }
    }
}

/// Some tokens with some heads at a position, which see a part of a block, or several.
pub(super) fn attend(run: AttendFn, format: Format) -> Outcome {
    let mut random = Random::new();
    for (size, kv_heads, heads) in
        [(32, 2, 1), (64, 1, 2), (96, 1, 3), (128, 3, 4), (100, 1, 7), (40, 2, 40)]
    {
        let cache = Cache::random(&mut random, format, size, kv_heads)?;
        for (positions, tokens, span) in [
            (1, 1, 0..64),
            (2, 1, 0..16),
            (15, 1, 0..64),
            (16, 3, 0..64),
            (17, 1, 16..32),
            (40, 1, 0..64),
            (Cache::POSITIONS, 1, 0..64),
            (Cache::POSITIONS, 1, 16..48),
            (9, 24, 0..64),
            (9, 24, 16..32),
            (9, 7, 16..64),
            (37, 5, 0..64),
        ] {
            for first in [0.5, f32::INFINITY, f32::NAN] {
                let (each, stride) = (heads * part(size), (heads + 1) * size);
                let mut q = random.floats(tokens * stride);
                q[0] = first;
                // The results of other heads are behind them, and are left alone, as are those of
                // tokens that see nothing.
                let mut want = vec![f32::from_bits(0xDEAD_BEEF); tokens * 2 * each];
                for (token, want) in want.chunks_mut(2 * each).enumerate() {
                    let end = span.end.min(positions + token);
                    let Some(kv) = cache.kv.get(span.start..end).filter(|kv| !kv.is_empty()) else {
                        continue;
                    };
                    for head in 0..heads {
                        let q = &q[token * stride + head * size..][..size];
                        let result = reference::attend(q, kv, 0.125);
                        want[head * part(size)..][..size + 2].copy_from_slice(&result);
                    }
                }
                let got = guarded(want.len(), &want, |out| {
                    Pool::alone().tiles(out, 2 * each, (tokens, each), |out| {
                        if out.cols().start == 0 {
                            run(AttendArgs {
                                q: &q,
                                stride,
                                size,
                                kv: cache.keys(),
                                positions,
                                span: span.clone(),
                                ahead: positions % 2 == 0,
                                scale: 0.125,
                                out,
                            });
                        }
                    });
                });
                case(got, || {
                    let (from, to) = (span.start, span.end);
                    format!(
                        "{from} to {to} of {positions}, {tokens} tokens, {heads} heads of {size}"
                    )
                })?;
            }
        }
    }
    Ok(())
}

/// One part, and some, of which the greatest score is in the first, the last or one between.
pub(super) fn join(run: JoinFn) -> Outcome {
    let mut random = Random::new();
    for (size, n) in [(32, 1), (64, 2), (100, 3), (128, 7), (7, 5)] {
        let stride = part(size) + 9;
        let mut parts: Vec<Vec<f32>> = (0..n).map(|_| random.floats(size + 2)).collect();
        for nan in [false, true] {
            for part in &mut parts {
                part[size] *= 100.0;
                part[size + 1] = part[size + 1].abs() + 1.0;
            }
            if nan {
                parts[n / 2].fill(f32::NAN);
            }
            let mut bytes = vec![f32::NAN; n * stride];
            for (out, part) in bytes.chunks_mut(stride).zip(&parts) {
                out[..size + 2].copy_from_slice(part);
            }
            let got = guarded(size, &reference::join(&parts, size), |out| {
                run(JoinArgs { parts: &bytes, stride, out });
            });
            case(got, || format!("{n} parts of {size}, NaN: {nan}"))?;
        }
    }
    Ok(())
}

pub(super) fn store(run: StoreFn, format: Format) -> Outcome {
    let mut random = Random::new();
    for n in [1, 15, 16, 32, 33, 100, 128, 2560] {
        let halves = (0..n).map(|i| if i == 0 { 127.0 } else { i as f32 % 126.0 - 62.5 }).collect();
        let small = random.floats(n).iter().map(|x| x * 1e-6).collect();
        let great = random.floats(n).iter().map(|x| x * 1e5).collect();
        let last = |x| [vec![0.5; n - 1], vec![x]].concat();
        let odd = [last(f32::NAN), last(f32::INFINITY), last(f32::MAX), vec![0.0; n]];
        for x in odd.into_iter().chain([random.floats(n), halves, small, great]) {
            let want = stored(format, &x)?;
            let mut got = vec![99; want.len() + 32];
            let end = 16 + want.len();
            run(StoreArgs { x: &x, place: Place::Row, out: &mut got[16..end] });
            let guards = got[..16].iter().chain(&got[end..]).all(|&byte| byte == 99);
            if !guards || !same_numbers(format, &got[16..end], &want) {
                return Err(format!("{n} numbers"));
            }
            // As one of sixteen positions, the others left alone.
            let lane = n % KV_BLOCK;
            let mut rows = vec![vec![99; want.len()]; KV_BLOCK];
            let mut block = reference::side_by_side(format, &rows);
            run(StoreArgs { x: &x, place: Place::Lane(lane), out: &mut block });
            rows[lane] = got[16..end].to_vec();
            if block != reference::side_by_side(format, &rows) {
                return Err(format!("{n} numbers side by side with others"));
            }
        }
    }
    Ok(())
}

/// Whether bytes are the same, but for which NaN a number is.
fn same_numbers(format: Format, got: &[u8], want: &[u8]) -> bool {
    let (n, bytes) = format.block();
    got.chunks(bytes).zip(want.chunks(bytes)).all(|(got, want)| {
        let mut numbers = [vec![0.0; n], vec![0.0; n]];
        widen(format, got, &mut numbers[0]);
        widen(format, want, &mut numbers[1]);
        let nan = |scale: &[u8]| f16::from_le_bytes([scale[0], scale[1]]).is_nan();
        match format {
            Format::Q8_0 if nan(want) => nan(got),
            _ => {
                got == want
                    || numbers[0]
                        .iter()
                        .zip(&numbers[1])
                        .all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan())
            }
        }
    })
}
