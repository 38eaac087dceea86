//! Reads memory and nothing else: the limit that gemv is measured against.

use crate::simd::{Floats, LANES, Op};

/// Places read from at a time: one alone leaves the memory idle while it waits.
const STREAMS: usize = 4;

/// What to read.
#[derive(Debug)]
pub struct ReadArgs<'a> {
    /// Numbers whose sum is the proof that they were read.
    pub data: &'a [f32],
    /// Becomes the sum, in no certain order of additions.
    pub sum: &'a mut f32,
}

/// A kernel that reads.
pub type ReadFn = for<'a> fn(ReadArgs<'a>);

pub(crate) struct Read;

impl<S: Floats> Op<S> for Read {
    type Args<'a> = ReadArgs<'a>;

    #[inline(always)]
    fn eval(s: S, args: ReadArgs<'_>) {
        let (chunks, rest) = args.data.as_chunks::<LANES>();
        let length = chunks.len() / STREAMS;
        let (streams, last) = chunks.split_at(length * STREAMS);
        let streams: [_; STREAMS] = std::array::from_fn(|i| &streams[i * length..][..length]);
        let mut sums = [s.splat(0.0); STREAMS];
        for i in 0..length {
            for (sum, stream) in sums.iter_mut().zip(streams) {
                *sum = s.add(*sum, s.load(&stream[i]));
            }
        }
        for chunk in last {
            sums[0] = s.add(sums[0], s.load(chunk));
        }
        let sum = sums.into_iter().map(|sum| s.sum(sum)).sum::<f32>();
        *args.sum = sum + rest.iter().sum::<f32>();
    }
}
