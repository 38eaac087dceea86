//! The gates of feed-forward networks: `gate = activation(gate) * up`. A gate that is not finite gives
//! NaN.

use super::softmax::exp;
use crate::simd::{Floats, LANES, Op, load_part, store_part};

/// Two vectors of one length.
#[derive(Debug)]
pub struct GateArgs<'a, G> {
    /// The gate; becomes the result.
    pub gate: &'a mut [f32],
    /// What is gated.
    pub up: &'a [f32],
    /// The activation.
    pub by: G,
}

/// Squared ReLU (So et al. 2021): `max(x, 0)^2`. BitNet b1.58 2B-4T.
#[derive(Clone, Copy, Debug)]
pub struct Relu2;

/// SiLU (Hendrycks and Gimpel 2016): `x / (1 + exp(-x))`. Llama, Qwen.
#[derive(Clone, Copy, Debug)]
pub struct Silu;

/// GELU (Hendrycks and Gimpel 2016) by its approximation with the hyperbolic tangent:
/// `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`. Gemma.
#[derive(Clone, Copy, Debug)]
pub struct Gelu;

/// A kernel that gates by squared ReLU.
pub type Relu2Fn = for<'a> fn(GateArgs<'a, Relu2>);

/// A kernel that gates by SiLU.
pub type SiluFn = for<'a> fn(GateArgs<'a, Silu>);

/// A kernel that gates by GELU.
pub type GeluFn = for<'a> fn(GateArgs<'a, Gelu>);

/// A gate by the activation `G`.
pub(crate) struct Gate<G>(G);

pub(crate) trait Activation: 'static {
    /// The activation of finite numbers.
    fn of<S: Floats>(s: S, x: S::F) -> S::F;
}

impl Activation for Relu2 {
    #[inline(always)]
    fn of<S: Floats>(s: S, x: S::F) -> S::F {
        let positive = s.max(x, s.splat(0.0));
        s.mul(positive, positive)
    }
}

impl Activation for Silu {
    #[inline(always)]
    fn of<S: Floats>(s: S, x: S::F) -> S::F {
        weigh(s, x, x)
    }
}

impl Activation for Gelu {
    /// `(1 + tanh u) / 2 = 1 / (1 + exp(-2 u))`.
    #[inline(always)]
    fn of<S: Floats>(s: S, x: S::F) -> S::F {
        /// `2 sqrt(2 / pi)`.
        const LINEAR: f32 = 1.595_769;
        /// `2 sqrt(2 / pi) 0.044715`.
        const CUBIC: f32 = 0.071_354_814;
        let factor = s.fma(s.mul(x, x), s.splat(CUBIC), s.splat(LINEAR));
        weigh(s, x, s.mul(x, factor))
    }
}

/// `x / (1 + exp(-z))` for `z` with the sign of `x`: with `e = exp(-|z|)`, which cannot overflow, it
/// is `x / (1 + e)` where they are positive, and `x e / (1 + e)` where they are negative.
#[inline(always)]
fn weigh<S: Floats>(s: S, x: S::F, z: S::F) -> S::F {
    let (zero, one) = (s.splat(0.0), s.splat(1.0));
    let e = exp(s, s.sub(zero, s.abs(z)));
    let (above, below) = (s.max(x, zero), s.max(s.sub(zero, x), zero));
    // One of the two is zero; which zero it is does not come through.
    let numerator = s.add(s.sub(zero, s.mul(below, e)), above);
    s.div(numerator, s.add(one, e))
}

#[inline(always)]
fn gate<S: Floats, G: Activation>(s: S, gate: S::F, up: S::F) -> S::F {
    // Zero times a number is zero, times anything else NaN, which `max` would lose.
    let zero = s.splat(0.0);
    let activated = s.add(G::of(s, gate), s.mul(gate, zero));
    s.mul(activated, up)
}

impl<S: Floats, G: Activation> Op<S> for Gate<G> {
    type Args<'a> = GateArgs<'a, G>;

    #[inline(always)]
    fn eval(s: S, args: GateArgs<'_, G>) {
        debug_assert_eq!(args.gate.len(), args.up.len());
        let (out, out_rest) = args.gate.as_chunks_mut::<LANES>();
        let (chunks, rest) = args.up.as_chunks::<LANES>();
        for (g, up) in out.iter_mut().zip(chunks) {
            s.store(gate::<S, G>(s, s.load(g), s.load(up)), g);
        }
        let last = gate::<S, G>(s, load_part(s, out_rest), load_part(s, rest));
        store_part(s, last, out_rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::scalar::Scalar;

    fn greatest_error<G: Activation>(by: G, want: fn(f64) -> f64) -> f64 {
        let numbers: Vec<f32> = (-3200..3200).map(|i| i as f32 / 160.0).collect();
        let mut got = numbers.clone();
        Gate::eval(Scalar, GateArgs { gate: &mut got, up: &[1.0; 6400], by });
        let error = |(x, got): (&f32, &f32)| {
            let want = want(f64::from(*x));
            // The exponential function ends at -87.
            (f64::from(*got) - want).abs() / want.abs().max(1e-30)
        };
        numbers.iter().zip(&got).map(error).fold(0.0, f64::max)
    }

    #[test]
    fn activations_are_those_of_their_papers() {
        let silu = greatest_error(Silu, |x| x / (1.0 + (-x).exp()));
        assert!(silu < 1e-6, "{silu}");
        let gelu = greatest_error(Gelu, |x| {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            // As a sigmoid: the tangent of negative numbers cancels.
            x / (1.0 + (-2.0 * u).exp())
        });
        // Where it is 1e-30 of `x`, the rounding of `u` is seen.
        assert!(gelu < 2e-5, "{gelu}");
        let relu2 = greatest_error(Relu2, |x| x.max(0.0).powi(2));
        assert!(relu2 < 1e-7, "{relu2}");
    }
}
