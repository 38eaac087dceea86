//! Cases of attention, and of what its cache holds.

use half::f16;

use super::cases::{Outcome, Random, case, guarded};
use super::reference;
use crate::format::{Format, widen};
use crate::op::{AttendArgs, AttendFn, KV_BLOCK, Keys, StoreArgs, StoreFn};

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

pub(super) fn attend(run: AttendFn, format: Format) -> Outcome {
    let mut random = Random::new();
    for (size, kv_heads, group) in
        [(32, 2, 1), (64, 1, 2), (96, 1, 3), (128, 3, 4), (100, 1, 7), (40, 2, 9)]
    {
        let bytes = stored(format, &vec![0.0; size])?.len();
        // Keys of all heads, then values of all heads; of a head all positions.
        let part = KV_BLOCK * bytes;
        let mut blocks = Vec::new();
        for _ in 0..5 {
            let positions =
                (0..2 * kv_heads * KV_BLOCK).map(|_| stored(format, &random.floats(size)));
            blocks.push(positions.collect::<Result<Vec<_>, _>>()?.concat().into_boxed_slice());
        }
        // The last head of a sequence whose blocks lie about in the cache.
        let table = [3, 0, 4, 2];
        let (keys, values) = ((kv_heads - 1) * part, (2 * kv_heads - 1) * part);
        let kv = Keys { blocks: &blocks, table: &table, keys, values, stride: bytes };
        for (positions, first) in [1, 2, 15, 16, 17, 40, 64].into_iter().flat_map(|positions| {
            [(positions, 0.5), (positions, f32::INFINITY), (positions, f32::NAN)]
        }) {
            let mut q = random.floats(group * size);
            q[0] = first;
            let want: Vec<f32> = q
                .chunks(size)
                .flat_map(|q| reference::attend(q, (format, kv), positions, 0.125))
                .collect();
            let got = guarded(group * size, &want, |out| {
                run(AttendArgs {
                    q: &q,
                    size,
                    kv,
                    positions,
                    ahead: positions % 2 == 0,
                    scale: 0.125,
                    out,
                });
            });
            case(got, || format!("{positions} positions, {group} heads of {size}"))?;
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
            run(StoreArgs { x: &x, out: &mut got[16..end] });
            let guards = got[..16].iter().chain(&got[end..]).all(|&byte| byte == 99);
            if !guards || !same_numbers(format, &got[16..end], &want) {
                return Err(format!("{n} numbers"));
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
