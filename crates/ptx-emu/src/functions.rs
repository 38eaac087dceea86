//! What instructions compute, on all lanes at once.

use half::{bf16, f16};

use crate::inst::{Function, Kind, Lanes, SHARED_WINDOW, Type};

/// A function of one number for each lane.
macro_rules! one {
    ($f:expr) => {
        Some(Function::One(|ty, a| {
            let f: fn(Type, u64) -> u64 = $f;
            std::array::from_fn(|i| f(ty, a[i]) & ty.mask())
        }))
    };
}

macro_rules! two {
    ($f:expr) => {
        Some(Function::Two(|ty, a, b| {
            let f: fn(Type, u64, u64) -> u64 = $f;
            std::array::from_fn(|i| f(ty, a[i], b[i]) & ty.mask())
        }))
    };
}

macro_rules! three {
    ($f:expr) => {
        Some(Function::Three(|ty, a, b, c| {
            let f: fn(Type, u64, u64, u64) -> u64 = $f;
            std::array::from_fn(|i| f(ty, a[i], b[i], c[i]) & ty.mask())
        }))
    };
}

macro_rules! four {
    ($f:expr) => {
        Some(Function::Four(|ty, a, b, c, d| {
            let f: fn(Type, u64, u64, u64, u64) -> u64 = $f;
            std::array::from_fn(|i| f(ty, a[i], b[i], c[i], d[i]) & ty.mask())
        }))
    };
}

fn f32_of(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

fn f64_of(x: u64) -> f64 {
    f64::from_bits(x)
}

fn of_f32(x: f32) -> u64 {
    u64::from(x.to_bits())
}

/// As devices give them: one NaN.
fn canonical(x: f32) -> u64 {
    if x.is_nan() { 0x7fff_ffff } else { of_f32(x) }
}

/// `min` and `max` give the number where one of both is none.
fn least(a: f32, b: f32) -> f32 {
    if a.is_nan() || b < a || (a == b && b.is_sign_negative()) { b } else { a }
}

fn greatest(a: f32, b: f32) -> f32 {
    if a.is_nan() || b > a || (a == b && a.is_sign_negative()) { b } else { a }
}

/// The sum, rounded towards zero.
fn cut_sum(a: f32, b: f32) -> f32 {
    let sum = a + b;
    // What rounding to nearest has lost, which is a number (Knuth).
    let part = sum - a;
    let lost = (a - (sum - part)) + (b - part);
    if sum.is_finite() && lost != 0.0 && (lost < 0.0) == (sum > 0.0) {
        f32::from_bits(sum.to_bits() - 1)
    } else {
        sum
    }
}

/// Shifts by as many bits as a number has, or more, give zeros, or signs.
fn left(ty: Type, a: u64, by: u64) -> u64 {
    a.checked_shl(u32::try_from(by & 0xffff_ffff).unwrap_or(u32::MAX))
        .filter(|_| by < u64::from(ty.bits))
        .unwrap_or(0)
}

fn right(ty: Type, a: u64, by: u64) -> u64 {
    let by = (by & 0xffff_ffff).min(u64::from(ty.bits));
    match ty.kind {
        Kind::Signed => (ty.signed(a) >> by.min(63)).cast_unsigned(),
        _ => (a & ty.mask()).checked_shr(by as u32).unwrap_or(0),
    }
}

fn product(ty: Type, a: u64, b: u64) -> i128 {
    ty.widen(a) * ty.widen(b)
}

fn permute(a: u64, b: u64, selector: u64) -> u64 {
    let bytes = (a & 0xffff_ffff) | (b << 32);
    (0..4).fold(0, |out, i| {
        let nibble = selector >> (4 * i) & 15;
        let byte = bytes >> (8 * (nibble & 7)) & 255;
        let byte = if nibble & 8 == 0 { byte } else { 255 * (byte >> 7) };
        out | byte << (8 * i)
    })
}

fn dp4a(signed: [bool; 2], a: u64, b: u64, c: u64) -> u64 {
    let byte = |signed: bool, x: u64, i: u32| {
        let byte = (x >> (8 * i)) as u8;
        if signed { i32::from(byte.cast_signed()) } else { i32::from(byte) }
    };
    let sum = (0..4).map(|i| byte(signed[0], a, i) * byte(signed[1], b, i));
    u64::from((sum.sum::<i32>()).wrapping_add((c as u32).cast_signed()).cast_unsigned())
}

fn both(f: fn(u16, u16) -> u16, a: u64, b: u64) -> u64 {
    u64::from(f(a as u16, b as u16)) | u64::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16
}

/// Single precision to half.
fn half(x: u64) -> u64 {
    let x = f32_of(x);
    u64::from(if x.is_nan() { 0x7fff } else { f16::from_f32(x).to_bits() })
}

/// The same to brain floats.
fn bfloat(x: u64) -> u64 {
    let x = f32_of(x);
    u64::from(if x.is_nan() { 0x7fff } else { bf16::from_f32(x).to_bits() })
}

/// The function of an opcode: its parts, less its type, which is given beside them.
pub(crate) fn function(parts: &[&str], ty: Type) -> Option<Function> {
    use Kind::{Bits, Float, Pair, Signed, Unsigned};
    let integer = matches!(ty.kind, Bits | Unsigned | Signed);
    match (parts, ty.kind, ty.bits) {
        (["mov"] | ["cvta", "global"] | ["cvta", "to", "global"], ..) => one!(|_, a| a),
        (["cvta", "shared"], ..) => one!(|_, a| a + SHARED_WINDOW),
        (["cvta", "to", "shared"], ..) => one!(|_, a| a - SHARED_WINDOW),
        // The first is the high one.
        (["cvt", "rn", "f16x2"], Float, 32) => two!(|_, a, b| half(a) << 16 | half(b)),
        (["cvt", "rn", "bf16x2"], Float, 32) => two!(|_, a, b| bfloat(a) << 16 | bfloat(b)),
        (["not"], Bits | Kind::Predicate, _) => one!(|_, a| !a),
        (["and"], Bits | Kind::Predicate, _) => two!(|_, a, b| a & b),
        (["or"], Bits | Kind::Predicate, _) => two!(|_, a, b| a | b),
        (["xor"], Bits | Kind::Predicate, _) => two!(|_, a, b| a ^ b),
        (["shl"], Bits, _) => two!(left),
        (["shr"], ..) if integer => two!(right),
        (["add"], ..) if integer => two!(|_, a, b| a.wrapping_add(b)),
        (["sub"], ..) if integer => two!(|_, a, b| a.wrapping_sub(b)),
        (["mul", "lo"], ..) if integer => two!(|ty, a, b| product(ty, a, b) as u64),
        (["mul", "hi"], ..) if integer => two!(|ty, a, b| (product(ty, a, b) >> ty.bits) as u64),
        (["mad", "lo"], ..) if integer => {
            three!(|ty, a, b, c| (product(ty, a, b) as u64).wrapping_add(c))
        }
        (["mad", "hi"], ..) if integer => {
            three!(|ty, a, b, c| ((product(ty, a, b) >> ty.bits) as u64).wrapping_add(c))
        }
        (["div"], Unsigned | Signed, _) => {
            two!(|ty, a, b| ty.widen(a).checked_div(ty.widen(b)).unwrap_or(-1) as u64)
        }
        (["rem"], Unsigned | Signed, _) => {
            two!(|ty, a, b| ty.widen(a).checked_rem(ty.widen(b)).unwrap_or(-1) as u64)
        }
        (["min"], Unsigned | Signed, _) => two!(|ty, a, b| ty.widen(a).min(ty.widen(b)) as u64),
        (["max"], Unsigned | Signed, _) => two!(|ty, a, b| ty.widen(a).max(ty.widen(b)) as u64),
        (["abs"], Signed, _) => one!(|ty, a| ty.signed(a).unsigned_abs()),
        (["neg"], Signed, _) => one!(|ty, a| ty.signed(a).wrapping_neg().cast_unsigned()),
        (["popc"], Bits, _) => one!(|ty, a| u64::from((a & ty.mask()).count_ones())),
        (["clz"], Bits, _) => {
            one!(|ty, a| u64::from((a & ty.mask()).leading_zeros()) + u64::from(ty.bits) - 64)
        }
        // Of nothing there is no first bit.
        (["bfind", "shiftamt"], Unsigned, 32) => one!(|ty, a| match a & ty.mask() {
            0 => ty.mask(),
            a => u64::from(a.leading_zeros()) - 32,
        }),
        (["brev"], Bits, _) => one!(|ty, a| a.reverse_bits() >> (64 - ty.bits)),
        (["bfe"], Unsigned, _) => three!(|ty, a, at, length| {
            right(ty, a, at & 255) & !left(ty, u64::MAX, length & 255)
        }),
        (["bfi"], Bits, _) => four!(|ty, a, b, at, length| {
            let field = left(ty, !left(ty, u64::MAX, length & 255) & ty.mask(), at & 255);
            b & !field | left(ty, a, at & 255) & field
        }),
        (["prmt"], Bits, 32) => three!(|_, a, b, selector| permute(a, b, selector)),
        (["lop3"], Bits, 32) => four!(|_, a, b, c, table| {
            (0..8).filter(|row| table >> row & 1 == 1).fold(0, |out, row| {
                let of = |x: u64, bit: u64| if row >> bit & 1 == 1 { x } else { !x };
                out | of(a, 2) & of(b, 1) & of(c, 0)
            })
        }),
        (["shf", "l", "wrap"], Bits, 32) => {
            three!(|_, a, b, by| ((a & 0xffff_ffff | b << 32) << (by & 31)) >> 32)
        }
        (["shf", "r", "wrap"], Bits, 32) => {
            three!(|_, a, b, by| (a & 0xffff_ffff | b << 32) >> (by & 31))
        }
        (["shf", "l", "clamp"], Bits, 32) => {
            three!(|_, a, b, by| ((a & 0xffff_ffff | b << 32) << by.min(32)) >> 32)
        }
        (["shf", "r", "clamp"], Bits, 32) => {
            three!(|_, a, b, by| (a & 0xffff_ffff | b << 32) >> by.min(32))
        }
        (["selp"], ..) => three!(|_, a, b, which| if which == 1 { a } else { b }),
        (["dp4a", "s32"], Signed, 32) => three!(|_, a, b, c| dp4a([true, true], a, b, c)),
        (["dp4a", "u32"], Signed, 32) => three!(|_, a, b, c| dp4a([false, true], a, b, c)),
        (["add" | "add.rn"], Float, 32) => two!(|_, a, b| canonical(f32_of(a) + f32_of(b))),
        (["add", "rz"], Float, 32) => two!(|_, a, b| canonical(cut_sum(f32_of(a), f32_of(b)))),
        (["sub" | "sub.rn"], Float, 32) => two!(|_, a, b| canonical(f32_of(a) - f32_of(b))),
        (["mul" | "mul.rn"], Float, 32) => two!(|_, a, b| canonical(f32_of(a) * f32_of(b))),
        (["fma", "rn"], Float, 32) => {
            three!(|_, a, b, c| canonical(f32_of(a).mul_add(f32_of(b), f32_of(c))))
        }
        (["div", "rn"], Float, 32) => two!(|_, a, b| canonical(f32_of(a) / f32_of(b))),
        (["rcp", "rn"], Float, 32) => one!(|_, a| canonical(1.0 / f32_of(a))),
        (["sqrt", "rn"], Float, 32) => one!(|_, a| canonical(f32_of(a).sqrt())),
        (["neg"], Float, 32) => one!(|_, a| of_f32(-f32_of(a))),
        (["abs"], Float, 32) => one!(|_, a| of_f32(f32_of(a).abs())),
        (["min"], Float, 32) => two!(|_, a, b| canonical(least(f32_of(a), f32_of(b)))),
        (["max"], Float, 32) => two!(|_, a, b| canonical(greatest(f32_of(a), f32_of(b)))),
        (["fma", "rn"], Float, 64) => {
            three!(|_, a, b, c| f64_of(a).mul_add(f64_of(b), f64_of(c)).to_bits())
        }
        (["add" | "add.rn"], Float, 64) => two!(|_, a, b| (f64_of(a) + f64_of(b)).to_bits()),
        (["mul" | "mul.rn"], Float, 64) => two!(|_, a, b| (f64_of(a) * f64_of(b)).to_bits()),
        (["xor"], Pair, _) => two!(|_, a, b| both(|a, b| a ^ b, a, b)),
        _ => None,
    }
}

/// `mul.wide` and `mad.wide`: the result has twice the bits of `ty`.
pub(crate) fn wide(ty: Type, addend: bool) -> Option<(Function, Type)> {
    let out = Type { bits: 2 * ty.bits, ..ty };
    let f = match (ty.kind, ty.bits) {
        (Kind::Signed, 32) => wide_of::<true, 32>(addend),
        (Kind::Unsigned, 32) => wide_of::<false, 32>(addend),
        (Kind::Signed, 16) => wide_of::<true, 16>(addend),
        (Kind::Unsigned, 16) => wide_of::<false, 16>(addend),
        _ => return None,
    };
    Some((f, out))
}

fn wide_of<const SIGNED: bool, const BITS: u32>(addend: bool) -> Function {
    fn times<const SIGNED: bool, const BITS: u32>(a: u64, b: u64) -> u64 {
        let kind = if SIGNED { Kind::Signed } else { Kind::Unsigned };
        product(Type { kind, bits: BITS }, a, b) as u64
    }
    match addend {
        false => Function::Two(|ty, a, b| {
            std::array::from_fn(|i| times::<SIGNED, BITS>(a[i], b[i]) & ty.mask())
        }),
        true => Function::Three(|ty, a, b, c| {
            std::array::from_fn(|i| {
                times::<SIGNED, BITS>(a[i], b[i]).wrapping_add(c[i]) & ty.mask()
            })
        }),
    }
}

/// Whether two numbers cannot be compared.
fn nan(a: f32, b: f32) -> bool {
    a.is_nan() || b.is_nan()
}

/// A comparison.
pub(crate) fn comparison(name: &str, ty: Type) -> Option<fn(Type, &Lanes, &Lanes) -> Lanes> {
    macro_rules! integers {
        ($test:expr) => {
            |ty, a, b| {
                let test: fn(i128, i128) -> bool = $test;
                std::array::from_fn(|i| u64::from(test(ty.widen(a[i]), ty.widen(b[i]))))
            }
        };
    }
    macro_rules! floats {
        ($test:expr) => {
            |_, a, b| {
                let test: fn(f32, f32) -> bool = $test;
                std::array::from_fn(|i| u64::from(test(f32_of(a[i]), f32_of(b[i]))))
            }
        };
    }
    Some(match (ty.kind, ty.bits, name) {
        (Kind::Float, 32, "eq") => floats!(|a, b| a == b),
        (Kind::Float, 32, "ne") => floats!(|a, b| a != b && !nan(a, b)),
        (Kind::Float, 32, "lt") => floats!(|a, b| a < b),
        (Kind::Float, 32, "le") => floats!(|a, b| a <= b),
        (Kind::Float, 32, "gt") => floats!(|a, b| a > b),
        (Kind::Float, 32, "ge") => floats!(|a, b| a >= b),
        (Kind::Float, 32, "equ") => floats!(|a, b| a == b || nan(a, b)),
        (Kind::Float, 32, "neu") => floats!(|a, b| a != b),
        (Kind::Float, 32, "ltu") => floats!(|a, b| a < b || nan(a, b)),
        (Kind::Float, 32, "leu") => floats!(|a, b| a <= b || nan(a, b)),
        (Kind::Float, 32, "gtu") => floats!(|a, b| a > b || nan(a, b)),
        (Kind::Float, 32, "geu") => floats!(|a, b| a >= b || nan(a, b)),
        (Kind::Float, 32, "num") => floats!(|a, b| !nan(a, b)),
        (Kind::Float, 32, "nan") => floats!(nan),
        (Kind::Bits | Kind::Unsigned | Kind::Signed, _, "eq") => integers!(|a, b| a == b),
        (Kind::Bits | Kind::Unsigned | Kind::Signed, _, "ne") => integers!(|a, b| a != b),
        (Kind::Unsigned | Kind::Signed, _, "lt" | "lo") => integers!(|a, b| a < b),
        (Kind::Unsigned | Kind::Signed, _, "le" | "ls") => integers!(|a, b| a <= b),
        (Kind::Unsigned | Kind::Signed, _, "gt" | "hi") => integers!(|a, b| a > b),
        (Kind::Unsigned | Kind::Signed, _, "ge" | "hs") => integers!(|a, b| a >= b),
        _ => return None,
    })
}

/// `cvt` between types. Whole numbers are cut off, or widened with their signs.
pub(crate) fn conversion(parts: &[&str], to: Type, from: Type) -> Option<fn(u64) -> u64> {
    use Kind::{BFloat, Bits, Float, Signed, Unsigned};
    macro_rules! integer {
        ($($bits:literal)*) => {
            match (from.kind, from.bits, to.bits) {
                $((Signed, $bits, 64) => |x| Type { kind: Signed, bits: $bits }.signed(x).cast_unsigned(),
                (Signed, $bits, 32) => |x| Type { kind: Signed, bits: $bits }.signed(x).cast_unsigned() & 0xffff_ffff,
                (Signed, $bits, 16) => |x| Type { kind: Signed, bits: $bits }.signed(x).cast_unsigned() & 0xffff,
                (Unsigned | Bits, $bits, to) if to >= $bits => |x| x & (u64::MAX >> (64 - $bits)),)*
                (_, _, 8) => |x| x & 0xff,
                (_, _, 16) => |x| x & 0xffff,
                (_, _, 32) => |x| x & 0xffff_ffff,
                _ => return None,
            }
        };
    }
    let integers = [Bits, Unsigned, Signed];
    Some(match (parts, (to.kind, to.bits), (from.kind, from.bits)) {
        ([], (to, _), (from, _)) if integers.contains(&to) && integers.contains(&from) => {
            integer!(8 16 32 64)
        }
        (["sat"], (Signed, 8), (Signed, 32)) => {
            |x| u64::from((x as u32).cast_signed().clamp(-128, 127) as u32)
        }
        (["rn"], (Float, 32), (Signed, 32)) => |x| of_f32((x as u32).cast_signed() as f32),
        (["rn"], (Float, 32), (Unsigned, 32)) => |x| of_f32(x as u32 as f32),
        (["rn"], (Float, 32), (Signed, 8)) => |x| of_f32(f32::from((x as u8).cast_signed())),
        (["rn"], (Float, 32), (Signed, 16)) => |x| of_f32(f32::from((x as u16).cast_signed())),
        (["rn"], (Float, 32), (Unsigned, 16)) => |x| of_f32(f32::from(x as u16)),
        (["rn"], (Float, 32), (Signed, 64)) => |x| of_f32(x.cast_signed() as f32),
        ([], (Float, 32), (Float, 16)) => |x| canonical(f16::from_bits(x as u16).to_f32()),
        ([], (Float, 32), (BFloat, 16)) => |x| canonical(bf16::from_bits(x as u16).to_f32()),
        (["rn"], (Float, 16), (Float, 32)) => half,
        (["rn"], (BFloat, 16), (Float, 32)) => bfloat,
        (["rni"], (Float, 32), (Float, 32)) => |x| canonical(f32_of(x).round_ties_even()),
        (["rzi"], (Float, 32), (Float, 32)) => |x| canonical(f32_of(x).trunc()),
        // What does not fit is the nearest that does; what is no number is 0.
        (["rni"], (Signed, 32), (Float, 32)) => {
            |x| u64::from((f32_of(x).round_ties_even() as i32).cast_unsigned())
        }
        (["rzi"], (Signed, 32), (Float, 32)) => |x| u64::from((f32_of(x) as i32).cast_unsigned()),
        (["rzi"], (Unsigned, 32), (Float, 32)) => |x| u64::from(f32_of(x) as u32),
        ([], (Float, 64), (Float, 32)) => |x| f64::from(f32_of(x)).to_bits(),
        (["rn"], (Float, 32), (Float, 64)) => |x| canonical(f64_of(x) as f32),
        _ => return None,
    })
}

/// What is left in memory, of what is there and one or two operands.
pub(crate) type Atomic = fn(Type, u64, u64, u64) -> u64;

/// An atomic operation.
pub(crate) fn atomic(name: &str, ty: Type) -> Option<Atomic> {
    Some(match (name, ty.kind) {
        ("add", Kind::Unsigned | Kind::Signed) => |_, old, b, _| old.wrapping_add(b),
        ("inc", Kind::Unsigned) => |_, old, b, _| if old >= b { 0 } else { old + 1 },
        ("exch", Kind::Bits) => |_, _, b, _| b,
        ("cas", Kind::Bits) => |_, old, b, c| if old == b { c } else { old },
        ("max", Kind::Unsigned | Kind::Signed) => {
            |ty, old, b, _| ty.widen(old).max(ty.widen(b)) as u64
        }
        ("min", Kind::Unsigned | Kind::Signed) => {
            |ty, old, b, _| ty.widen(old).min(ty.widen(b)) as u64
        }
        ("or", Kind::Bits) => |_, old, b, _| old | b,
        ("and", Kind::Bits) => |_, old, b, _| old & b,
        _ => return None,
    })
}

/// What `redux` folds the lanes with.
pub(crate) fn reduction(name: &str, ty: Type) -> Option<fn(Type, u64, u64) -> u64> {
    Some(match (name, ty.kind) {
        ("add", Kind::Unsigned | Kind::Signed) => |_, a, b| a.wrapping_add(b),
        ("max", Kind::Unsigned | Kind::Signed) => |ty, a, b| ty.widen(a).max(ty.widen(b)) as u64,
        ("min", Kind::Unsigned | Kind::Signed) => |ty, a, b| ty.widen(a).min(ty.widen(b)) as u64,
        ("or", Kind::Bits) => |_, a, b| a | b,
        ("and", Kind::Bits) => |_, a, b| a & b,
        ("xor", Kind::Bits) => |_, a, b| a ^ b,
        _ => return None,
    })
}
