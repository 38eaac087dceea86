//! Linear layers that may have norms of their own before them, as the BitNet embedding models have.

use super::Place;
use crate::Error;
use crate::backend::Backend;
use crate::linear::Linear;
use crate::source::Loader;

/// A linear layer, and a norm before it if it has one of its own.
#[derive(Debug)]
pub(super) struct Projection {
    /// `[in features]`.
    norm: Option<Vec<f32>>,
    pub(super) linear: Linear,
}

impl Projection {
    /// The layer `[rows, cols]` of this name.
    pub(super) fn load(
        loader: &mut Loader<'_>,
        name: &str,
        (rows, cols): (usize, usize),
    ) -> Result<Projection, Error> {
        let norm = format!("{name}_norm_in.weight");
        let norm = loader.has(&norm).then(|| loader.vector(&norm, cols)).transpose()?;
        Ok(Projection { norm, linear: loader.linear(name, (rows, cols))? })
    }
}

/// Several layers on one input `x`, each with its output; `input` is a buffer for quantised rows.
pub(super) fn project<B: Backend, const N: usize>(
    b: &mut B,
    (x, input): (&B::Floats, &mut B::Quantized),
    at: Place<'_>,
    outputs: [(&Projection, &mut B::Floats); N],
) {
    let n = at.rows.len();
    if outputs.iter().all(|(projection, _)| projection.norm.is_none()) {
        b.quantize(x, n, input);
        b.linear(input, n, outputs.map(|(projection, out)| (&projection.linear, out)));
        return;
    }
    for (projection, out) in outputs {
        match &projection.norm {
            Some(norm) => b.norm_quantize(x, at.norm(norm), n, input),
            None => b.quantize(x, n, input),
        }
        b.linear(input, n, [(&projection.linear, out)]);
    }
}
