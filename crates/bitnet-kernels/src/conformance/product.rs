//! Products with ternary matrices: random, the greatest sums, ragged shapes.

use super::cases::{Outcome, Random, SMALL, Unaligned, case, guarded};
use super::reference;
use crate::format::{self, Format};
use crate::op::{GemmArgs, GemmFn, GemvArgs, GemvFn, RowScale, interleave};
use crate::packed::{Packed, Panels, padded};
use crate::pool::{Pool, Tile};
use crate::shapes::{RAGGED, Shape};

/// A ternary matrix and some rows of activations.
struct Product {
    shape: Shape,
    weights: Vec<i8>,
    tokens: usize,
    /// `[tokens, padded columns]`.
    x: Vec<i8>,
    scales: Vec<RowScale>,
}

const D: f32 = 0.375;

/// Widths that end within a block of each layout, within eight columns and within four. All are whole
/// blocks of the file that is packed.
const STRADDLING: [Shape; 4] = [
    Shape { rows: 32, cols: 100 },
    Shape { rows: 128, cols: 1 },
    Shape { rows: 32, cols: if SMALL { 36 } else { 5460 } },
    Shape { rows: 64, cols: if SMALL { 66 } else { 1602 } },
];

impl Product {
    /// Of `x` `[tokens, columns]`.
    fn new(shape: Shape, weights: Vec<i8>, x: Vec<i8>) -> Product {
        let zeros = vec![0; padded(shape.cols) - shape.cols];
        let x: Vec<_> = x.chunks(shape.cols).flat_map(|x| [x, &zeros].concat()).collect();
        let scale = |(i, x): (usize, &[i8])| RowScale {
            scale: 3.7 + i as f32,
            sum: x.iter().map(|&x| i32::from(x)).sum(),
        };
        let scales: Vec<_> = x.chunks(padded(shape.cols)).enumerate().map(scale).collect();
        Product { shape, weights, tokens: scales.len(), x, scales }
    }

    /// Random and worst cases for `tokens` rows of activations.
    fn all(tokens: usize) -> Vec<Product> {
        let mut random = Random::new();
        let mut cases = Vec::new();
        let ragged = RAGGED.into_iter().take(if SMALL { 3 } else { RAGGED.len() });
        for shape in ragged.chain(STRADDLING) {
            let weights = random.trits(shape.rows * shape.cols);
            cases.push(Product::new(shape, weights, random.bytes(tokens * shape.cols)));
        }
        // The greatest and the least sums there are; and in panels that are read together.
        let worst = [
            Shape { rows: 2, cols: if SMALL { 256 } else { 32768 } },
            Shape { rows: 33, cols: if SMALL { 128 } else { 2304 } },
        ];
        for Shape { rows, cols } in worst {
            for (weight, x) in [(1, 127), (1, -128), (-1, 127), (-1, -128)] {
                let shape = Shape { rows, cols };
                cases.push(Product::new(shape, vec![weight; rows * cols], vec![x; tokens * cols]));
            }
        }
        cases
    }

    /// `[tokens, rows]`.
    fn expected(&self) -> Vec<f32> {
        let Shape { cols, .. } = self.shape;
        let mut y = Vec::new();
        for (x, scale) in self.x.chunks(padded(cols)).zip(&self.scales) {
            let rows = self.weights.chunks(cols);
            y.extend(rows.map(|row| reference::ternary(row, x, *scale, D)));
        }
        y
    }

    fn name(&self) -> String {
        format!("{} x {}, {} tokens", self.shape.rows, self.shape.cols, self.tokens)
    }

    /// The packed matrix at an odd address.
    fn pack(&self, layout: Format) -> Result<[Unaligned; 2], String> {
        let Shape { rows, cols } = self.shape;
        let fail = |e: format::FormatError| e.to_string();
        let bytes = format::encode(Format::I2S, &self.weights, rows, cols, D).map_err(fail)?;
        let packed =
            Packed::new(Format::I2S, &bytes, (rows, cols), layout, &Pool::alone()).map_err(fail)?;
        if packed.scale() != D {
            return Err("scale does not come back".to_owned());
        }
        Ok(packed.panels(0..rows).0.map(|panels| Unaligned::new(panels.as_flattened())))
    }
}

pub(super) fn gemv(run: GemvFn, layout: Format) -> Outcome {
    for product in Product::all(1) {
        let panels = product.pack(layout)?;
        let got = guarded(product.shape.rows, &product.expected(), |y| {
            run(GemvArgs {
                panels: Panels(panels.each_ref().map(|panels| panels.bytes().as_chunks().0)),
                scale: D,
                x: product.x.as_chunks().0,
                x_scale: product.scales[0],
                y,
            });
        });
        case(got, || product.name())?;
    }
    Ok(())
}

/// Fours of tokens, parts of fours, and more than share what is unpacked.
pub(super) fn gemm(run: GemmFn, layout: Format) -> Outcome {
    for tokens in [1, 3, 4, 6, 13] {
        for product in Product::all(tokens) {
            one_gemm(run, layout, &product)?;
        }
    }
    let mut random = Random::new();
    let shape = Shape { rows: 40, cols: 384 };
    let weights = random.trits(shape.rows * shape.cols);
    one_gemm(run, layout, &Product::new(shape, weights, random.bytes(150 * shape.cols)))
}

fn one_gemm(run: GemmFn, layout: Format, product: &Product) -> Outcome {
    let panels = product.pack(layout)?;
    let (rows, wide) = (product.shape.rows, padded(product.shape.cols));
    let mut x = vec![[[99; 4]; 4]; product.tokens.div_ceil(4) * wide / 4];
    interleave(&product.x, wide, &mut x);
    let got = guarded(product.tokens * rows, &product.expected(), |y| {
        run(GemmArgs {
            panels: Panels(panels.each_ref().map(|panels| panels.bytes().as_chunks().0)),
            scale: D,
            x: &x,
            x_scales: &product.scales,
            y: Tile::new(y, rows),
        });
    });
    case(got, || product.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_is_wrong_is_caught() {
        fn unscaled(args: GemvArgs<'_>) {
            args.y.fill(0.0);
        }
        assert!(gemv(unscaled, Format::I2SR32).is_err());
    }
}
