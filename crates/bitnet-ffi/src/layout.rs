//! The structures of llama.cpp's interface, which differ between its versions and do not say which they are.
//!
//! They are passed by value, so a wrong guess would be read as nonsense. What a library takes is found out by
//! having it write its defaults twice, over two different backgrounds: what is the same both times is what it
//! wrote, so their size is known, and some defaults have always been the same and tell where fields are. A
//! structure that is none of these is not used.

/// Bytes that a library wrote; nothing where it left what was there.
pub(crate) type Written = [Option<u8>];

/// A version of a structure.
#[derive(Debug)]
pub(crate) struct Layout<Fields> {
    /// The builds of llama.cpp that were seen to have it.
    pub(crate) builds: &'static str,
    /// Bytes, rounded up to 8.
    pub(crate) size: usize,
    /// Words of 4 bytes that have one of these values.
    defaults: &'static [(usize, &'static [u32])],
    /// Offsets of what is set.
    pub(crate) fields: Fields,
}

/// What is set of `llama_model_params`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ModelFields {
    /// `n_gpu_layers`.
    pub(crate) gpu_layers: usize,
}

/// What is set of `llama_context_params`, beside what has always been in the same place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ContextFields {
    /// `cb_eval`; its data is behind it.
    pub(crate) callback: usize,
    /// `type_k`; `type_v` is behind it.
    pub(crate) cache_types: usize,
    /// `flash_attn`.
    pub(crate) flash: Flash,
    /// `kv_unified`, where there is one.
    pub(crate) unified: Option<usize>,
}

/// How flash attention is switched.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flash {
    /// A byte: 0 or 1.
    Byte(usize),
    /// A word: -1 (automatic), 0 or 1.
    Word(usize),
}

/// Fields of `llama_context_params` that have always been in the same place.
pub(crate) const N_CTX: usize = 0x00;
pub(crate) const N_BATCH: usize = 0x04;
pub(crate) const N_UBATCH: usize = 0x08;
pub(crate) const N_SEQ_MAX: usize = 0x0c;

const MINUS: u32 = u32::MAX;

static MODELS: [Layout<ModelFields>; 5] = [
    Layout {
        builds: "v0.4.0 to v0.5.0",
        size: 80,
        defaults: &[
            (0x10, &[MINUS]),
            (0x14, &[1]),
            (0x18, &[MINUS]),
            (0x1c, &[1]),
            (0x48, &[0x0001_0000]),
        ],
        fields: ModelFields { gpu_layers: 0x10 },
    },
    Layout {
        builds: "b5590 to b10361",
        size: 72,
        defaults: &[
            (0x08, &[0]),
            (0x0c, &[0]),
            (0x10, &[0, 999, MINUS]),
            (0x14, &[1]),
            (0x20, &[0]),
        ],
        fields: ModelFields { gpu_layers: 0x10 },
    },
    Layout {
        builds: "b4600 to b4980",
        size: 64,
        defaults: &[(0x04, &[0]), (0x08, &[0]), (0x0c, &[1]), (0x10, &[0]), (0x38, &[0x0000_0100])],
        fields: ModelFields { gpu_layers: 0x08 },
    },
    Layout {
        builds: "b4234",
        size: 72,
        defaults: &[(0x04, &[0]), (0x08, &[0]), (0x0c, &[1]), (0x10, &[0]), (0x40, &[0x0000_0100])],
        fields: ModelFields { gpu_layers: 0x08 },
    },
    Layout {
        builds: "b3889 to b3995",
        size: 64,
        defaults: &[(0x00, &[0]), (0x04, &[1]), (0x08, &[0]), (0x38, &[0x0000_0100])],
        fields: ModelFields { gpu_layers: 0x00 },
    },
];

/// `n_ctx`, `n_batch`, `n_ubatch` and `n_seq_max` of all versions.
macro_rules! defaults {
    ($($more:expr),*) => {
        &[(N_CTX, &[512]), (N_BATCH, &[2048]), (N_UBATCH, &[512]), (N_SEQ_MAX, &[1]), $($more),*]
    };
}

static CONTEXTS: [Layout<ContextFields>; 6] = [
    Layout {
        builds: "b10361 to v0.5.0",
        size: 160,
        defaults: defaults!(
            (0x18, &[1]),
            (0x1c, &[4]),
            (0x20, &[4]),
            (0x24, &[0]),
            (0x34, &[MINUS]),
            (0x68, &[1]),
            (0x6c, &[1]),
            (0x80, &[0x0101_0100])
        ),
        fields: ContextFields {
            callback: 0x58,
            cache_types: 0x68,
            flash: Flash::Word(0x34),
            unified: Some(0x85),
        },
    },
    Layout {
        builds: "b10068",
        size: 160,
        defaults: defaults!(
            (0x18, &[4]),
            (0x1c, &[4]),
            (0x20, &[0]),
            (0x30, &[MINUS]),
            (0x34, &[0]),
            (0x68, &[1]),
            (0x6c, &[1]),
            (0x80, &[0x0101_0100])
        ),
        fields: ContextFields {
            callback: 0x58,
            cache_types: 0x68,
            flash: Flash::Word(0x30),
            unified: Some(0x85),
        },
    },
    Layout { builds: "b7836 to b8352", size: 136, defaults: MIDDLE_DEFAULTS, fields: MIDDLE },
    Layout { builds: "b6431 to b7347", size: 120, defaults: MIDDLE_DEFAULTS, fields: MIDDLE },
    Layout {
        builds: "b5590 to b6301",
        size: 120,
        defaults: defaults!(
            (0x10, &[4]),
            (0x14, &[4]),
            (0x24, &[0]),
            (0x58, &[1]),
            (0x5c, &[1]),
            (0x60, &[0]),
            (0x70, &[0x0100_0100])
        ),
        fields: ContextFields {
            callback: 0x48,
            cache_types: 0x58,
            flash: Flash::Byte(0x72),
            unified: None,
        },
    },
    Layout {
        builds: "b3889 to b4980",
        size: 120,
        defaults: defaults!(
            (0x10, &[4]),
            (0x14, &[4]),
            (0x24, &[0]),
            (0x58, &[1]),
            (0x5c, &[1]),
            (0x60, &[0x0001_0000]),
            (0x68, &[0])
        ),
        fields: ContextFields {
            callback: 0x48,
            cache_types: 0x58,
            flash: Flash::Byte(0x63),
            unified: None,
        },
    },
];

/// Of two versions that differ in what is behind.
const MIDDLE_DEFAULTS: &[(usize, &[u32])] = defaults!(
    (0x10, &[4]),
    (0x14, &[4]),
    (0x24, &[MINUS]),
    (0x28, &[0]),
    (0x58, &[1]),
    (0x5c, &[1]),
    (0x70, &[0x0101_0100])
);
const MIDDLE: ContextFields = ContextFields {
    callback: 0x48,
    cache_types: 0x58,
    flash: Flash::Word(0x24),
    unified: Some(0x75),
};

impl<Fields> Layout<Fields> {
    fn fits(&self, written: &Written) -> bool {
        let word = |at: usize| {
            let bytes: Option<Vec<u8>> = written.get(at..at + 4)?.iter().copied().collect();
            Some(u32::from_le_bytes(bytes?.try_into().ok()?))
        };
        let has =
            |(at, values): &(usize, &[u32])| word(*at).is_some_and(|word| values.contains(&word));
        size(written) == self.size && self.defaults.iter().all(has)
    }
}

/// Bytes up to the last that was written, rounded up to 8.
fn size(written: &Written) -> usize {
    let last = written.iter().rposition(Option::is_some);
    last.map_or(0, |last| (last + 1).next_multiple_of(8))
}

/// The version of `llama_model_params` that a library wrote.
///
/// # Errors
///
/// What it wrote, where that is of no version that is known.
pub(crate) fn model(written: &Written) -> Result<&'static Layout<ModelFields>, String> {
    find(&MODELS, "llama_model_params", written)
}

/// The version of `llama_context_params` that a library wrote.
///
/// # Errors
///
/// As [`model`].
pub(crate) fn context(written: &Written) -> Result<&'static Layout<ContextFields>, String> {
    find(&CONTEXTS, "llama_context_params", written)
}

fn find<Fields>(
    known: &'static [Layout<Fields>],
    name: &str,
    written: &Written,
) -> Result<&'static Layout<Fields>, String> {
    known.iter().find(|layout| layout.fits(written)).ok_or_else(|| {
        format!("its {name}, of {} bytes, is of no version that is known", size(written))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a library with this layout writes, with holes where it does not say what.
    fn written<Fields>(layout: &Layout<Fields>) -> Vec<Option<u8>> {
        let mut bytes = vec![Some(0); layout.size];
        bytes.resize(1024, None);
        for (at, values) in layout.defaults {
            for (byte, value) in bytes[*at..].iter_mut().zip(values[0].to_le_bytes()) {
                *byte = Some(value);
            }
        }
        bytes
    }

    #[test]
    fn each_version_is_told_from_the_others() {
        for layout in &MODELS {
            assert_eq!(model(&written(layout)).unwrap().builds, layout.builds);
        }
        for layout in &CONTEXTS {
            assert_eq!(context(&written(layout)).unwrap().builds, layout.builds);
        }
        // Not all bytes of the last word need be written, nor those between fields.
        let mut short = written(&CONTEXTS[5]);
        short[0x44..0x48].fill(None);
        short[119] = None;
        assert!(context(&short).is_ok());
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for layout in &CONTEXTS {
            let mut longer = written(layout);
            longer[layout.size + 16] = Some(0);
            let error = context(&longer).unwrap_err();
            let size = layout.size + 24;
            assert!(error.contains(&format!("llama_context_params, of {size} bytes")), "{error}");
            for (at, _) in layout.defaults {
                let mut other = written(layout);
                other[*at] = Some(77);
                assert!(context(&other).is_err(), "{} {at:#x}", layout.builds);
                other[*at] = None;
                assert!(context(&other).is_err(), "{} {at:#x}", layout.builds);
            }
        }
        assert!(model(&[]).unwrap_err().contains("of 0 bytes"));
    }

    /// Fields that are set are within the structure, and no default contradicts them.
    #[test]
    fn fields_are_where_their_defaults_are() {
        for layout in &MODELS {
            let at = layout.fields.gpu_layers;
            assert!(layout.defaults.iter().any(|(offset, _)| *offset == at), "{}", layout.builds);
        }
        for layout in &CONTEXTS {
            let has = |at: usize| layout.defaults.iter().any(|(offset, _)| *offset == at);
            let ContextFields { callback, cache_types, flash, unified } = layout.fields;
            assert!(has(cache_types) && has(cache_types + 4), "{}", layout.builds);
            match flash {
                Flash::Word(at) => assert!(has(at)),
                // With the other flags, which have defaults together.
                Flash::Byte(at) => assert!(has(at & !3)),
            }
            for at in [callback + 8, cache_types + 4, unified.unwrap_or(0)] {
                assert!(at < layout.size, "{}", layout.builds);
            }
        }
    }
}
