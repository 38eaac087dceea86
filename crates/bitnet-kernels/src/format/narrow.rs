//! Numbers into the bytes of the floating-point formats: the inverse of [`widen`](super::widen), as
//! near as the format comes.

use half::{bf16, f16};

use super::q4_k::pack_scales;
use super::{Format, FormatError, encode_iq2_s};

/// Rows of numbers in the bytes of one of [`Format::FLOAT`]. `x` is `[rows, cols]`, row-major.
///
/// F32 keeps the bits, F16 and BF16 are the nearest number. In Q8_0 the scale of a block is its
/// greatest magnitude over 127; each number is the nearest multiple. In Q4_0 the scale is the number of
/// the greatest magnitude over -8, in Q2_0 the greatest magnitude, so that ternary numbers stay what
/// they are. In Q6_K the step of 16 numbers, and in Q4_K the step and the minimum of 32, are those of
/// the least squares of errors, of some that are tried. IQ2_S as [`encode_iq2_s`]. What is too great for
/// F16 is infinite there.
///
/// # Errors
///
/// [`FormatError`] where `x` is not whole rows, the format does not have such rows, or a number is not
/// finite or too great for the scale of its block.
///
/// # Panics
///
/// If `format` is a ternary one.
pub fn narrow(format: Format, x: &[f32], cols: usize) -> Result<Vec<u8>, FormatError> {
    let row = format.row_bytes(cols)?;
    if !x.len().is_multiple_of(cols) {
        let expected = row * x.len().div_ceil(cols);
        return Err(FormatError::Length { format, expected, found: x.len() / cols * row });
    }
    if let Some(index) = x.iter().position(|&x| !fits(format, x)) {
        return Err(FormatError::Number { index, value: x[index] });
    }
    let mut out = Vec::with_capacity(x.len() / cols * row);
    match format {
        Format::F32 => out.extend(x.iter().flat_map(|x| x.to_le_bytes())),
        Format::F16 => out.extend(x.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes())),
        Format::Bf16 => out.extend(x.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes())),
        Format::Q8_0 => x.as_chunks().0.iter().for_each(|block| out.extend(q8_0(block))),
        Format::Q6K => x.as_chunks().0.iter().for_each(|block| out.extend(q6_k(block))),
        Format::Iq2S => out = encode_iq2_s(x)?,
        Format::Q4_0 => x.as_chunks().0.iter().for_each(|block| out.extend(q4_0(block))),
        Format::Q4K => x.as_chunks().0.iter().for_each(|block| out.extend(q4_k(block))),
        Format::Q2_0 => x.chunks_exact(64).for_each(|block| q2_0(block, &mut out)),
        Format::Q2_0G128 => x.chunks_exact(128).for_each(|block| q2_0(block, &mut out)),
        _ => panic!("{format} is a ternary format"),
    }
    Ok(out)
}

/// Whether a block with `x` has a finite scale.
fn fits(format: Format, x: f32) -> bool {
    let scale = match format {
        Format::Q8_0 => x / 127.0,
        Format::Q6K => x / 31.0 / 127.0,
        Format::Q4_0 => x / 8.0,
        // Of the minimum, which can be some less than the least; that of scales is less.
        Format::Q4K => x / 50.0,
        Format::Q2_0 | Format::Q2_0G128 => x,
        _ => return true,
    };
    f16::from_f32(scale).is_finite()
}

/// The greatest magnitude.
fn greatest(x: &[f32]) -> f32 {
    furthest(x).abs()
}

/// The number of the greatest magnitude.
fn furthest(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |most: f32, &x| if x.abs() > most.abs() { x } else { most })
}

/// `x / step` to the nearest integer from `-most - 1` to `most`; 0 where the step is.
fn level(x: f32, step: f32, most: f32) -> f32 {
    /// Numbers of this size are whole: sums with it are rounded, to even ones in the middle.
    const WHOLE: f32 = 1.5 * (1 << 23) as f32;
    if step == 0.0 { 0.0 } else { (x / step).clamp(-most - 1.0, most) + WHOLE - WHOLE }
}

/// Numbers of levels that are tried, from the first, a fifth more each time.
fn tried(first: f32, count: u8) -> impl Iterator<Item = f32> {
    (0..count).map(move |i| first + 0.2 * f32::from(i))
}

fn q8_0(x: &[f32; 32]) -> [u8; 34] {
    let d = f16::from_f32(greatest(x) / 127.0);
    let mut block = [0; 34];
    block[..2].copy_from_slice(&d.to_le_bytes());
    for (q, &x) in block[2..].iter_mut().zip(x) {
        *q = (level(x, d.to_f32(), 127.0) as i8).cast_unsigned();
    }
    block
}

/// The step of levels from -32 to 31 whose multiples are nearest to 16 numbers. The number of the greatest
/// magnitude is at -32, or about there.
fn step(x: &[f32; 16]) -> f32 {
    let furthest = furthest(x);
    let (mut best, mut step) = (0.0, 0.0);
    for levels in tried(31.0, 11) {
        let (mut products, mut squares) = (0.0, 0.0);
        for &x in x {
            // Of magnitudes whose squares are numbers.
            let x = if furthest == 0.0 { 0.0 } else { x / furthest };
            let q = level(x, -1.0 / levels, 31.0);
            (products, squares) = (products + x * q, squares + q * q);
        }
        // The more this is, the less is left of the squares of the numbers.
        let explained = products * products / squares;
        if explained > best {
            (best, step) = (explained, products / squares * furthest);
        }
    }
    step
}

/// Where the parts of a number are: see `q6_k.rs`.
fn q6_k(x: &[f32; 256]) -> [u8; 210] {
    let mut block = [0; 210];
    let steps: [_; 16] = std::array::from_fn(|i| step(&x.as_chunks().0[i]));
    let d = f16::from_f32(furthest(&steps) / -128.0);
    block[208..].copy_from_slice(&d.to_le_bytes());
    for (i, x) in x.as_chunks::<16>().0.iter().enumerate() {
        let scale = level(steps[i], d.to_f32(), 127.0);
        block[192 + i] = (scale as i8).cast_unsigned();
        for (lane, &x) in x.iter().enumerate() {
            let q = (level(x, d.to_f32() * scale, 31.0) as i8 + 32).cast_unsigned();
            let (half, group, l) = (i / 8, i % 8 / 2, i % 2 * 16 + lane);
            block[64 * half + 32 * (group % 2) + l] |= (q & 15) << (4 * (group / 2));
            block[128 + 32 * half + l] |= (q >> 4) << (2 * group);
        }
    }
    block
}

fn q4_0(x: &[f32; 32]) -> [u8; 18] {
    let d = f16::from_f32(furthest(x) / -8.0);
    let mut block = [0; 18];
    block[..2].copy_from_slice(&d.to_le_bytes());
    for (i, &x) in x.iter().enumerate() {
        let q = (level(x, d.to_f32(), 7.0) as i8 + 8).cast_unsigned();
        block[2 + i % 16] |= q << (i / 16 * 4);
    }
    block
}

/// The step and the minimum, which is not above 0, of levels from 0 to 15 that are nearest to 32 numbers.
fn step_and_minimum(x: &[f32; 32]) -> (f32, f32) {
    let least = x.iter().fold(0.0_f32, |least, x| x.min(least));
    let range = x.iter().fold(0.0_f32, |range, x| range.max(x - least));
    if range == 0.0 {
        return (0.0, least);
    }
    let (mut best, mut found) = (f32::INFINITY, (0.0, 0.0));
    for levels in tried(13.0, 13) {
        let q = x.map(|x| level((x - least) / range, 1.0 / levels, 15.0));
        // In units of the range, so that squares are numbers.
        let x = x.map(|x| x / range);
        let sum = |of: fn(f32, f32) -> f32| x.iter().zip(&q).map(|(&x, &q)| of(x, q)).sum::<f32>();
        let (sx, sq, xq, qq) = (sum(|x, _| x), sum(|_, q| q), sum(|x, q| x * q), sum(|_, q| q * q));
        let slope = (32.0 * xq - sx * sq) / (32.0 * qq - sq * sq);
        let (slope, minimum) = match (sx - slope * sq) / 32.0 {
            minimum if minimum < 0.0 => (slope, minimum),
            _ => (xq / qq, 0.0),
        };
        let errors = x.iter().zip(&q).map(|(x, q)| x - minimum - slope * q);
        let squares: f32 = errors.map(|error| error * error).sum();
        if squares < best && slope > 0.0 {
            (best, found) = (squares, (slope * range, minimum * range));
        }
    }
    found
}

/// Where the parts of a number are: see `q4_k.rs`.
fn q4_k(x: &[f32; 256]) -> [u8; 144] {
    let groups = x.as_chunks::<32>().0;
    let fits: [_; 8] = std::array::from_fn(|j| step_and_minimum(&groups[j]));
    let (steps, minima) = (fits.map(|(step, _)| step), fits.map(|(_, minimum)| minimum));
    let [d, d_min] = [&steps, &minima].map(|of| f16::from_f32(greatest(of) / 63.0));
    let of_six = |x: f32, d: f16| level(x, d.to_f32(), 63.0) as u8;
    let scales = std::array::from_fn(|j| [of_six(steps[j], d), of_six(-minima[j], d_min)]);
    let mut block = [0; 144];
    block[..2].copy_from_slice(&d.to_le_bytes());
    block[2..4].copy_from_slice(&d_min.to_le_bytes());
    block[4..16].copy_from_slice(&pack_scales(&scales));
    for (j, (group, [scale, minimum])) in groups.iter().zip(scales).enumerate() {
        let step = d.to_f32() * f32::from(scale);
        let minimum = d_min.to_f32() * f32::from(minimum);
        for (l, x) in group.iter().enumerate() {
            block[16 + 32 * (j / 2) + l] |= (level(x + minimum, step, 15.0) as u8) << (4 * (j % 2));
        }
    }
    block
}

fn q2_0(x: &[f32], out: &mut Vec<u8>) {
    let d = f16::from_f32(greatest(x));
    out.extend(d.to_le_bytes());
    for four in x.as_chunks::<4>().0 {
        let code = |x: f32| (level(x, d.to_f32(), 2.0).max(-1.0) as i8 + 1).cast_unsigned();
        out.push(four.iter().rev().fold(0, |byte, &x| byte << 2 | code(x)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::widen;

    #[test]
    fn what_was_narrowed_widens_to_nearly_the_same() {
        let x: Vec<f32> = (0..1024).map(|i| ((i * 37 % 1024) as f32 - 500.0) / 300.0).collect();
        // Of the greatest magnitude, which is 1.75.
        let bounds = [0.0, 0.0005, 0.004, 0.0045, 0.02, 0.5, 0.126, 0.075, 0.5, 0.5];
        for (format, bound) in Format::FLOAT.into_iter().zip(bounds) {
            let bytes = narrow(format, &x, 512).unwrap();
            assert_eq!(bytes.len(), 2 * format.row_bytes(512).unwrap());
            let mut out = [0.0; 512];
            for (row, x) in bytes.chunks(bytes.len() / 2).zip(x.chunks(512)) {
                widen(format, row, &mut out);
                let differences = out.iter().zip(x).map(|(a, b)| (a - b).abs());
                let worst = differences.fold(0.0, f32::max) / 1.75;
                assert!(worst <= bound, "{format}: {worst}");
            }
        }
    }

    #[test]
    fn ternary_numbers_stay_what_they_are_in_two_bits() {
        let x: Vec<f32> = (0..256).map(|i| ((7 * i + i / 5) % 3 - 1) as f32 * 0.75).collect();
        for format in [Format::Q2_0, Format::Q2_0G128] {
            let mut out = [1.0; 256];
            widen(format, &narrow(format, &x, 256).unwrap(), &mut out);
            assert_eq!(out[..], x, "{format}");
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        // IQ2_S has no code for zero: its scale is.
        for format in Format::FLOAT {
            let mut out = [1.0; 256];
            widen(format, &narrow(format, &[0.0; 256], 256).unwrap(), &mut out);
            assert_eq!(out, [0.0; 256], "{format}");
        }
    }

    #[test]
    fn rows_that_are_none_are_refused() {
        let columns = narrow(Format::Q6K, &[0.0; 128], 128).unwrap_err();
        assert!(matches!(columns, FormatError::Columns { cols: 128, .. }), "{columns}");
        for (format, value) in [
            (Format::Q8_0, 9e6),
            (Format::Q6K, 3e8),
            (Format::Q4_0, -6e5),
            (Format::Q4K, 5e6),
            (Format::Q2_0, 1e5),
            (Format::Q8_0, f32::NAN),
        ] {
            let mut x = [1.0; 512];
            narrow(format, &x, 256).unwrap();
            x[300] = value;
            let error = narrow(format, &x, 256).unwrap_err();
            assert!(matches!(error, FormatError::Number { index: 300, .. }), "{error}");
        }
        let length = narrow(Format::F16, &[0.0; 33], 16).unwrap_err();
        assert_eq!(length, FormatError::Length { format: Format::F16, expected: 96, found: 64 });
    }
}
