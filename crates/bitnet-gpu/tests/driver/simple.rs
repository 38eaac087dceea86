//! Products of bytes and codes, as the processor has them.

use bitnet_gpu::cuda::{BatchMatmulParams, Error, Gpu};
use bitnet_kernels::simple::{SimpleError, matmul_i2s};
use fake_cuda::cases::{Case, Library};

pub(crate) const CASES: &[Case] = &[
    ("products_of_codes", Library::Fake, "", products),
    ("products_of_codes_on_older_devices", Library::Fake, "cc=6.1", products),
    ("products_of_codes_are_checked", Library::Fake, "memory=2500000", refused),
];

/// Some of each shape, not one after another, and more of one than are computed at a time.
fn products() {
    let gpu = Gpu::open(0).unwrap();
    let before = gpu.memory().current_allocated;
    gpu.batch_matmul_i2s(&mut []).unwrap();
    let mut shapes = vec![[2, 3, 5], [1, 18, 300], [70, 33, 129], [3, 2, 0], [0, 4, 4], [4, 0, 4]];
    shapes.extend([[2, 3, 5], [1, 18, 300]]);
    shapes.extend([[2, 1, 2]; 17]);
    let inputs: Vec<(Vec<i8>, Vec<u8>)> = (0..)
        .zip(&shapes)
        .map(|(seed, &[m, n, k])| {
            let a = (0..m * k).map(|i| ((i + seed) * 89 + 128) as u8 as i8).collect();
            (a, (0..k * n).map(|i| ((i + seed) * 7 % 11) as u8).collect())
        })
        .collect();
    let expected = shapes.iter().zip(&inputs).map(|(&[m, n, k], (a, b))| {
        let mut c = vec![0.0; m * n];
        matmul_i2s(a, b, &mut c, m, n, k).unwrap();
        c
    });
    let expected: Vec<_> = expected.collect();
    let mut found: Vec<_> = shapes.iter().map(|[m, n, _]| vec![7.0; m * n]).collect();
    let params = shapes.iter().zip(&inputs).zip(&mut found);
    let params = params.map(|((&[m, n, k], (a, b)), c)| BatchMatmulParams { a, b, c, m, n, k });
    gpu.batch_matmul_i2s(&mut params.collect::<Vec<_>>()).unwrap();
    for ((shape, found), expected) in shapes.iter().zip(&found).zip(&expected) {
        assert!(found == expected, "{shape:?}");
    }
    // By itself.
    let ([m, n, k], (a, b)) = (shapes[2], &inputs[2]);
    let mut c = vec![0.0; m * n];
    gpu.matmul_i2s(BatchMatmulParams { a, b, c: &mut c, m, n, k }).unwrap();
    assert!(c == expected[2]);
    assert_eq!(gpu.memory().current_allocated, before);
}

fn refused() {
    let gpu = Gpu::open(0).unwrap();
    let (mut sound, mut short) = ([7.0], [7.0; 3]);
    let mut batch = [
        BatchMatmulParams { a: &[1], b: &[2], c: &mut sound, m: 1, n: 1, k: 1 },
        BatchMatmulParams { a: &[1; 4], b: &[2; 4], c: &mut short, m: 2, n: 2, k: 2 },
    ];
    let error = gpu.batch_matmul_i2s(&mut batch).unwrap_err();
    let expected = SimpleError::Length { what: "c", expected: 4, found: 3 };
    assert_eq!(error, Error::Arguments(expected));
    assert_eq!(sound, [7.0], "nothing was computed");

    let k = (1 << 18) + 1;
    let (a, b) = (vec![1; k], vec![2; k]);
    let long = BatchMatmulParams { a: &a, b: &b, c: &mut [0.0], m: 1, n: 1, k };
    let error = gpu.matmul_i2s(long).unwrap_err();
    assert!(error.to_string().contains("k = 262145; there are those of up to"), "{error}");
    // The greatest sum, and the least; the weights of 16 rows are a megabyte.
    for (x, expected) in [(-128, -33_554_432.0), (127, 33_292_288.0)] {
        let (a, mut c) = (vec![x; k - 1], [0.0]);
        let product = BatchMatmulParams { a: &a, b: &b[1..], c: &mut c, m: 1, n: 1, k: k - 1 };
        gpu.matmul_i2s(product).unwrap();
        assert_eq!(c, [expected]);
    }
    let (b, mut c) = (vec![2; 200 * 50_000], [0.0; 200]);
    let large = BatchMatmulParams { a: &a[..50_000], b: &b, c: &mut c, m: 1, n: 200, k: 50_000 };
    let error = gpu.matmul_i2s(large).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
}
