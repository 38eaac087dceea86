//! The functions of `simple`: the tests of the brief, and what they must refuse.

use bitnet_kernels::simple::{QuantizationType, SimpleError, matmul_i2s, quantize};
use proptest::prelude::*;

/// Bytes that look random.
fn bytes(seed: usize, n: usize) -> Vec<u8> {
    let mut state = seed as u64 ^ 0x9E37_79B9_7F4A_7C15;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..n).map(|_| next()).collect()
}

/// The product as the brief defines it.
fn plain(a: &[i8], b: &[u8], [m, n, k]: [usize; 3]) -> Vec<f32> {
    let weight = |byte: u8| match byte & 0b11 {
        0b00 => -1.0,
        0b10 => 1.0,
        _ => 0.0,
    };
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            for l in 0..k {
                c[i * n + j] += f32::from(a[i * k + l]) * weight(b[l * n + j]);
            }
        }
    }
    c
}

#[test]
fn test_matmul_i2s_correctness() {
    let a = [-1, 0, 1, -1, 0, 1];
    let b = [0, 1, 2, 0, 1, 2];
    let mut c = [0.0; 4];
    matmul_i2s(&a, &b, &mut c, 2, 2, 3).expect("shapes that fit");
    assert_eq!(c, [1.0; 4]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn test_matmul_dimensions(m in 1_usize..100, n in 1_usize..100, k in 1_usize..100) {
        let a: Vec<i8> = bytes(m, m * k).iter().map(|x| x.cast_signed()).collect();
        let b = bytes(n, k * n);
        let mut c = vec![f32::NAN; m * n];
        prop_assert_eq!(matmul_i2s(&a, &b, &mut c, m, n, k), Ok(()));
        prop_assert_eq!(c, plain(&a, &b, [m, n, k]));
    }
}

#[test]
fn the_greatest_sums_do_not_wrap() {
    for (a, b, sum) in [(127, 2, 127.0), (-128, 2, -128.0), (-128, 0, 128.0), (-128, 3, 0.0)] {
        let k = 32768;
        let mut c = [0.0; 5 * 33];
        matmul_i2s(&vec![a; 5 * k], &vec![b; k * 33], &mut c, 5, 33, k).expect("shapes that fit");
        assert_eq!(c, [sum * k as f32; 5 * 33], "{a} times code {b}");
    }
}

#[test]
fn matrices_that_do_not_fit_are_refused() {
    let mut c = [0.0; 4];
    let mut run = |a: &[i8], b: &[u8], [m, n, k]: [usize; 3]| matmul_i2s(a, b, &mut c, m, n, k);
    let error = |what, expected, found| Err(SimpleError::Length { what, expected, found });
    assert_eq!(run(&[0; 5], &[0; 6], [2, 2, 3]), error("a", 6, 5));
    assert_eq!(run(&[0; 6], &[0; 7], [2, 2, 3]), error("b", 6, 7));
    assert_eq!(run(&[0; 6], &[0; 9], [2, 3, 3]), error("c", 6, 4));
    let shape = [usize::MAX, 2, 2];
    assert_eq!(run(&[], &[], shape), Err(SimpleError::Overflow { shape }));
    // Sums of nothing.
    assert_eq!(run(&[], &[], [2, 2, 0]), Ok(()));
    assert_eq!(c, [0.0; 4]);
    assert_eq!(matmul_i2s(&[0; 6], &[], &mut [], 2, 0, 3), Ok(()));
}

#[test]
fn test_quantization_round_trip() {
    let input = [0.5, -0.3, 0.8, -0.1];
    let (mut output, mut scales) = ([0; 4], [0.0]);
    quantize(&input, &mut output, &mut scales, QuantizationType::I2S).expect("finite numbers");
    assert_eq!(output, [2, 0, 2, 1]);
    assert!((scales[0] - 0.425).abs() < 1e-6, "{scales:?}");
    let weights = output.map(|code| (f32::from(code) - 1.0) * scales[0]);
    let errors = input.iter().zip(weights).map(|(x, w)| (x - w).abs());
    assert!(errors.fold(0.0, f32::max) < 0.376);
}

#[test]
fn every_type_holds_the_same_weights() {
    for n in [1, 2, 3, 5, 6, 128, 3072, 3073, 3074, 10_001] {
        let input: Vec<f32> = bytes(n, n).iter().map(|&x| f32::from(x) / 100.0 - 1.28).collect();
        let mut scale = [0.0];
        let mut run = |qtype: QuantizationType| {
            let mut output = vec![99; n.div_ceil(qtype.weights())];
            quantize(&input, &mut output, &mut scale, qtype).expect("finite numbers");
            (output, scale[0])
        };
        let (codes, scale) = run(QuantizationType::I2S);
        let mean = input.iter().map(|x| f64::from(x.abs())).sum::<f64>() / n as f64;
        assert!((f64::from(scale) - mean).abs() < 1e-6 * mean, "{n}: {scale} is not {mean}");
        let trit = |i: usize| codes.get(i).map_or(0, |code| code.cast_signed() - 1);
        for (x, i) in input.iter().zip(0..) {
            let nearest = (x / scale).round().clamp(-1.0, 1.0);
            assert!((nearest - f32::from(trit(i))).abs() == 0.0 || (x / scale).abs() % 1.0 == 0.5);
        }

        let (pairs, pair_scale) = run(QuantizationType::Tl1);
        let want = (0..n).step_by(2).map(|i| (3 * trit(i) + trit(i + 1) + 4).cast_unsigned());
        assert!(pairs.into_iter().eq(want), "{n}");
        let (triples, triple_scale) = run(QuantizationType::Tl2);
        let want = (0..n).step_by(3).map(|i| {
            let v = 9 * trit(i) + 3 * trit(i + 1) + trit(i + 2);
            if v < 0 { 16 + v.unsigned_abs() } else { v.unsigned_abs() }
        });
        assert!(triples.into_iter().eq(want), "{n}");
        assert_eq!([pair_scale, triple_scale], [scale; 2]);
    }
}

#[test]
fn input_is_validated() {
    let run = |input: &[f32], output: usize, scales: usize| {
        let (mut output, mut scales) = (vec![77; output], vec![7.5; scales]);
        let result = quantize(input, &mut output, &mut scales, QuantizationType::Tl1);
        assert!(
            result.is_ok() || output.iter().all(|&x| x == 77) && scales.iter().all(|&x| x == 7.5)
        );
        result
    };
    assert_eq!(run(&[], 0, 1), Err(SimpleError::Empty));
    let error = |what, expected, found| Err(SimpleError::Length { what, expected, found });
    assert_eq!(run(&[0.0; 5], 5, 1), error("output", 3, 5));
    assert_eq!(run(&[0.0; 5], 3, 2), error("scales", 1, 2));
    assert_eq!(run(&[0.0; 5], 3, 1), Ok(()));
    for value in [f32::INFINITY, f32::NEG_INFINITY] {
        let mut input = vec![0.5; 10_000];
        input[8191] = value;
        assert_eq!(run(&input, 5000, 1), Err(SimpleError::Number { index: 8191, value }));
    }
    let nan = run(&[1.0, f32::NAN], 1, 1).expect_err("not a number");
    assert!(matches!(nan, SimpleError::Number { index: 1, value } if value.is_nan()));
    assert!(nan.to_string().contains("index 1"), "{nan}");
    // Finite, but their sum is not.
    let great = SimpleError::Number { index: 1, value: f32::MAX };
    assert_eq!(run(&[1.0, f32::MAX, f32::MAX], 2, 1), Err(great));
}

#[test]
fn types_have_the_numbers_of_the_brief() {
    for (value, qtype) in [QuantizationType::I2S, QuantizationType::Tl1, QuantizationType::Tl2]
        .into_iter()
        .enumerate()
    {
        assert_eq!(QuantizationType::try_from(value as u8), Ok(qtype));
        assert_eq!(qtype as usize, value);
    }
    assert_eq!(QuantizationType::try_from(3), Err(SimpleError::Type { value: 3 }));
}
