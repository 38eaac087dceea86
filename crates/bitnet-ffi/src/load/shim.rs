//! The C interface that BitNet.rs puts before bitnet.cpp.

use std::ffi::{CString, c_char, c_int};
use std::path::Path;
use std::ptr;
use std::time::Instant;

use super::{Libraries, Opaque, c_path, ids, int};
use crate::wire::{Loaded, Ran, Row, Settings};

/// `bitnet_params_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Params {
    context: i32,
    threads: i32,
    seed: i32,
    rope_base: f32,
}

/// A model behind the interface. It gives the logits of the last token of a text alone, which it reads from the
/// beginning each time.
#[derive(Debug)]
pub(crate) struct Shim<'a> {
    libraries: &'a Libraries,
    model: Opaque,
    params: Params,
    vocabulary: usize,
    /// The tokens of each sequence.
    sequences: Vec<Vec<i32>>,
}

type Tokenize = unsafe extern "C" fn(Opaque, *const c_char, c_int, c_int, *mut i32, c_int) -> c_int;
type Evaluate = unsafe extern "C" fn(Opaque, *const i32, c_int, *mut f32, c_int) -> c_int;

impl<'a> Shim<'a> {
    pub(crate) fn load(
        libraries: &'a Libraries,
        path: &Path,
        settings: &Settings,
    ) -> Result<Shim<'a>, String> {
        let file = c_path(path)?;
        // SAFETY: the function has this type in the interface.
        let model = unsafe {
            let load: unsafe extern "C" fn(*const c_char) -> Opaque =
                libraries.get("bitnet_model_new_from_file")?;
            load(file.as_ptr())
        };
        if model.is_null() {
            return Err(format!("it cannot load {}", path.display()));
        }
        let params = Params {
            context: int(settings.context)?,
            threads: int(settings.threads)?,
            seed: 0,
            rope_base: 0.0,
        };
        let sequences = vec![Vec::new(); settings.sequences];
        Ok(Shim { libraries, model, params, vocabulary: settings.vocabulary, sequences })
    }

    pub(crate) fn loaded(&self) -> Loaded {
        Loaded {
            context: self.params.context as usize,
            description: String::new(),
            offloads: false,
        }
    }

    pub(crate) fn tokenize(
        &self,
        text: &str,
        special: bool,
        parse: bool,
    ) -> Result<Vec<u32>, String> {
        let text = CString::new(text).map_err(|_| "the text has a zero in it, where C ends it")?;
        let mut tokens = vec![0_i32; text.as_bytes().len() + 8];
        // SAFETY: the function has this type in the interface; it writes as many tokens as there is room for.
        let count = unsafe {
            let tokenize: Tokenize = self.libraries.get("bitnet_tokenize")?;
            let (special, parse) = (c_int::from(special), c_int::from(parse));
            let room = int(tokens.len())?;
            tokenize(self.model, text.as_ptr(), special, parse, tokens.as_mut_ptr(), room)
        };
        ids("bitnet_tokenize", tokens, count)
    }

    pub(crate) fn run(&mut self, rows: &[Row]) -> Result<(Ran, Vec<f32>), String> {
        let (mut ran, mut numbers) = (Ran::default(), Vec::new());
        for row in rows {
            let known = self.sequences.len();
            let sequence = self
                .sequences
                .get_mut(row.sequence)
                .ok_or_else(|| format!("there are {known} sequences"))?;
            sequence.truncate(row.position);
            sequence.push(int(row.token as usize)?);
            if row.logits {
                let tokens = sequence.clone();
                let start = Instant::now();
                numbers.extend(self.evaluate(&tokens)?);
                ran.nanoseconds += start.elapsed().as_nanos() as u64;
            }
        }
        ran.logits = numbers.len();
        Ok((ran, numbers))
    }

    /// The logits behind a text, in a context of its own: what an older one holds is not forgotten.
    fn evaluate(&self, tokens: &[i32]) -> Result<Vec<f32>, String> {
        let mut logits = vec![0.0; self.vocabulary];
        // SAFETY: the functions have these types in the interface; logits are written as far as there is room.
        let result = unsafe {
            let create: unsafe extern "C" fn(Opaque, *const Params) -> Opaque =
                self.libraries.get("bitnet_context_new")?;
            let evaluate: Evaluate = self.libraries.get("bitnet_eval")?;
            let context = create(self.model, ptr::from_ref(&self.params));
            if context.is_null() {
                return Err("it cannot make a context for the model".to_owned());
            }
            let (count, room) = (int(tokens.len())?, int(logits.len())?);
            let result = evaluate(context, tokens.as_ptr(), count, logits.as_mut_ptr(), room);
            if let Ok(free) =
                self.libraries.get::<unsafe extern "C" fn(Opaque)>("bitnet_context_free")
            {
                free(context);
            }
            result
        };
        if result == 0 { Ok(logits) } else { Err(format!("`bitnet_eval` gave {result}")) }
    }

    pub(crate) fn truncate(&mut self, sequence: usize, length: usize) {
        if let Some(sequence) = self.sequences.get_mut(sequence) {
            sequence.truncate(length);
        }
    }
}

impl Drop for Shim<'_> {
    fn drop(&mut self) {
        // SAFETY: the library made it, and it is not used any more.
        unsafe {
            if let Ok(free) =
                self.libraries.get::<unsafe extern "C" fn(Opaque)>("bitnet_model_free")
            {
                free(self.model);
            }
        }
    }
}
