//! Matrices whose rows end within a block: the shapes of the 1bitLLM models, and ragged ones.

use bitnet_kernels::format::{FormatError, decode, encode};
use bitnet_kernels::op::{GemmArgs, GemmFn, GemvArgs, GemvFn, RowScale, interleave};
use bitnet_kernels::packed::padded;
use bitnet_kernels::pool::Tile;
use bitnet_kernels::{Cpu, Format, Kernel, Operation, Packed, Pool, kernels};

/// Rows and columns: those of `ffn_down` of `xl` and `3B`, and some that are a multiple of nothing.
const SHAPES: [(usize, usize); 3] = [(96, 5460), (64, 8640), (128, 77)];
const TOKENS: usize = 3;

/// Formats that hold rows of any width.
const FORMATS: [Format; 4] = [Format::I2S, Format::HfPacked, Format::I2SArm, Format::I2SR4];

fn weights(rows: usize, cols: usize) -> Vec<i8> {
    (0..rows * cols).map(|i| ((i * i + 7 * i + i / 5) % 3) as i8 - 1).collect()
}

/// Rows of activations, with zeros up to the columns that kernels take.
fn activations(cols: usize) -> Vec<Vec<i8>> {
    let x = |token: usize, i: usize| ((31 * i + 101 * token + i / 7) % 256) as u8 as i8;
    let row = |token| (0..padded(cols)).map(move |i| if i < cols { x(token, i) } else { 0 });
    (0..TOKENS).map(|token| row(token).collect()).collect()
}

/// The sums, token by token.
fn sums(weights: &[i8], cols: usize, x: &[Vec<i8>]) -> Vec<f32> {
    let sum = |row: &[i8], x: &[i8]| {
        row.iter().zip(x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum::<i32>() as f32
    };
    x.iter().flat_map(|x| weights.chunks(cols).map(|row| sum(row, x)).collect::<Vec<_>>()).collect()
}

/// The product by one kernel, or nothing if it does not run here.
fn product(kernel: &Kernel, matrix: &Packed, x: &[Vec<i8>]) -> Option<Vec<f32>> {
    let (rows, cpu) = (matrix.rows(), Cpu::detect());
    let panels = matrix.panels(0..rows);
    let row_scale =
        |x: &Vec<i8>| RowScale { scale: 1.0, sum: x.iter().map(|&x| i32::from(x)).sum() };
    let x_scales: Vec<_> = x.iter().map(row_scale).collect();
    let (scale, mut y) = (matrix.scale(), vec![f32::NAN; x.len() * rows]);
    if kernel.operation() == Operation::Gemv {
        let run = kernel.bind::<GemvFn>(&cpu)?;
        for ((x, y), &x_scale) in x.iter().zip(y.chunks_mut(rows)).zip(&x_scales) {
            run(GemvArgs { panels, scale, x: x.as_chunks().0, x_scale, y });
        }
    } else {
        let run = kernel.bind::<GemmFn>(&cpu)?;
        let width = padded(matrix.cols());
        let mut fours = vec![[[0; 4]; 4]; x.len().div_ceil(4) * width / 4];
        interleave(&x.concat(), width, &mut fours);
        let y = Tile::new(&mut y, rows);
        run(GemmArgs { panels, scale, x: &fours, x_scales: &x_scales, y });
    }
    Some(y)
}

#[test]
fn products_are_those_of_a_plain_loop() {
    for (rows, cols) in SHAPES {
        let (weights, x) = (weights(rows, cols), activations(cols));
        let want = sums(&weights, cols, &x);
        for format in FORMATS {
            let bytes = encode(format, &weights, rows, cols, 1.0).unwrap();
            assert_eq!(decode(format, &bytes, rows, cols).unwrap(), weights, "{format}");
            for layout in Format::PACKED {
                let matrix = Packed::new(format, &bytes, (rows, cols), layout, &Pool::alone());
                let matrix = matrix.unwrap();
                let mut tested = 0;
                let ours = |k: &&Kernel| k.operation().is_product() && k.format() == Some(layout);
                for kernel in kernels().filter(ours) {
                    let Some(y) = product(kernel, &matrix, &x) else { continue };
                    assert!(y == want, "{format} {rows} x {cols}: {kernel}");
                    tested += 1;
                }
                assert!(tested >= 2, "{layout}: {tested} kernels");
            }
        }
    }
}

#[test]
fn formats_with_blocks_in_rows_refuse_such_rows() {
    for (format, multiple) in [
        (Format::Tq1_0, 256),
        (Format::Tq2_0, 256),
        (Format::Iq1Bn, 64),
        (Format::Iq2Bn, 64),
        (Format::Iq2BnR4, 64),
        (Format::BitNet32F16, 32),
    ] {
        let error = encode(format, &weights(96, 5460), 96, 5460, 1.0).unwrap_err();
        assert_eq!(error, FormatError::Columns { format, cols: 5460, multiple });
    }
    // In all, I2_S has whole blocks.
    let error = encode(Format::I2S, &weights(2, 77), 2, 77, 1.0).unwrap_err();
    let expected = FormatError::Elements { format: Format::I2S, rows: 2, cols: 77, multiple: 128 };
    assert_eq!(error, expected);
}
