//! How a token is drawn of the likeliest ones, in the words of the kernel that does it.

/// What a sampler does to the tokens that are left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cut {
    /// Takes so many of the likeliest.
    TopK(u32),
    /// Takes the likeliest that together have this probability.
    TopP(f32),
    /// Takes those that are at least so many times as likely as the likeliest.
    MinP(f32),
    /// Divides logits by this.
    Temperature(f32),
}

/// How a token is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// What is drawn, from 0 to 1.
    uniform: f32,
    /// What is done before, in this order.
    cuts: [Option<Cut>; CUTS],
}

/// Cuts of a draw at most.
const CUTS: usize = 4;

impl Draw {
    /// One behind some cuts; none if there are more than there is room for.
    pub fn new(uniform: f32, of: impl IntoIterator<Item = Cut>) -> Option<Draw> {
        let mut cuts = [None; CUTS];
        for (at, cut) in of.into_iter().enumerate() {
            *cuts.get_mut(at)? = Some(cut);
        }
        Some(Draw { uniform, cuts })
    }

    /// The likeliest token, of equally likely ones the first.
    #[must_use]
    pub fn greedy() -> Draw {
        Draw { uniform: 0.0, cuts: [Some(Cut::TopK(1)), None, None, None] }
    }

    /// `Draw` of `select.cu`.
    #[cfg(feature = "cuda")]
    pub(crate) fn words(&self) -> [u32; WORDS] {
        let mut words = [0; WORDS];
        words[0] = self.uniform.to_bits();
        for (to, cut) in words[1..].as_chunks_mut().0.iter_mut().zip(self.cuts) {
            *to = match cut {
                None => [0, 0],
                Some(Cut::TopK(k)) => [1, k],
                Some(Cut::TopP(p)) => [2, p.to_bits()],
                Some(Cut::MinP(p)) => [3, p.to_bits()],
                Some(Cut::Temperature(t)) => [4, t.to_bits()],
            };
        }
        words
    }
}

/// Words of a draw.
#[cfg(feature = "cuda")]
pub(crate) const WORDS: usize = 1 + 2 * CUTS;
