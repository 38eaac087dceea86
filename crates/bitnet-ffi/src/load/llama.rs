//! libllama.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;
use std::time::Instant;

use super::{Libraries, Opaque, c_path, ids, int};
use crate::contract::{Contract, Names};
use crate::layout::{self, ContextFields, Flash, Layout, ModelFields};
use crate::wire::{Loaded, Ran, Row, Settings};

/// Words in which all versions of a structure have room.
const WORDS: usize = 128;

/// A structure of the library, passed by value. Those that are smaller are its beginning: all calling conventions
/// that are known here pass one of this size in memory.
#[repr(C)]
#[derive(Clone, Copy)]
struct Params([u64; WORDS]);

impl Params {
    /// A structure as the library fills it, and which bytes it filled.
    ///
    /// # Safety
    ///
    /// `function` must be a function that takes nothing and gives a structure of at most this size, and more than
    /// two words.
    unsafe fn of(function: Opaque) -> (Params, Vec<Option<u8>>) {
        let [first, second] = [0xaa, 0x55].map(|background: u8| {
            let mut params = Params([u64::from_ne_bytes([background; 8]); WORDS]);
            // SAFETY: as of this function.
            unsafe { fill(function, &mut params) };
            params
        });
        let written =
            first.bytes().zip(second.bytes()).map(|(a, b)| (a == b).then_some(a)).collect();
        (first, written)
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        self.0.into_iter().flat_map(u64::to_ne_bytes)
    }

    fn set<const N: usize>(&mut self, at: usize, value: [u8; N]) {
        for (index, byte) in value.into_iter().enumerate() {
            let (word, byte_of_word) = ((at + index) / 8, (at + index) % 8);
            let mut bytes = self.0[word].to_ne_bytes();
            bytes[byte_of_word] = byte;
            self.0[word] = u64::from_ne_bytes(bytes);
        }
    }
}

/// Calls a function that gives a structure, which it writes where the caller says.
///
/// # Safety
///
/// As [`Params::of`].
#[cfg(target_arch = "x86_64")]
unsafe fn fill(function: Opaque, params: &mut Params) {
    // SAFETY: both calling conventions of this processor pass the place as if it were the first parameter.
    unsafe {
        let function: unsafe extern "C" fn(*mut Params) -> *mut Params =
            std::mem::transmute(function);
        function(params);
    }
}

#[cfg(target_arch = "aarch64")]
unsafe fn fill(function: Opaque, params: &mut Params) {
    // SAFETY: the place is passed in x8; all that a call may change is said to be changed.
    unsafe {
        std::arch::asm!("blr {function}", function = in(reg) function, in("x8") params, clobber_abi("C"));
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn fill(_: Opaque, _: &mut Params) {
    // Nothing is written, which fits no version: no function is called on processors whose convention is not known.
}

/// `llama_batch`, with what it had behind it up to 2024.
#[repr(C)]
#[derive(Clone, Copy)]
struct Batch {
    tokens: i32,
    token: *const i32,
    embeddings: *const f32,
    positions: *const i32,
    sequence_counts: *const i32,
    sequences: *const *const i32,
    logits: *const i8,
    legacy: [i32; 4],
}

/// A model in libllama, with a context.
#[derive(Debug)]
pub(crate) struct Llama<'a> {
    libraries: &'a Libraries,
    contract: Contract,
    names: Names,
    model: Opaque,
    context: Opaque,
    /// What tokenises: the vocabulary, or the model where they are one.
    tokenizer: Opaque,
    vocabulary: usize,
    batch: usize,
    /// What the callback writes to; at a place of its own, which the library knows.
    trace: Box<Trace>,
}

/// The layers of a pass.
#[derive(Debug)]
struct Trace {
    on: bool,
    functions: Option<TraceFunctions>,
    layers: Vec<(usize, Vec<f32>)>,
}

#[derive(Clone, Copy, Debug)]
struct TraceFunctions {
    name: unsafe extern "C" fn(*const c_void) -> *const c_char,
    elements: unsafe extern "C" fn(*const c_void) -> i64,
    bytes: unsafe extern "C" fn(*const c_void) -> usize,
    get: unsafe extern "C" fn(*const c_void, *mut c_void, usize, usize),
}

/// How libllama calls the output of layer N: `l_out-N`.
const LAYER: &str = "l_out-";

/// Asked before a tensor is computed whether it is of interest, and called with it afterwards.
unsafe extern "C" fn observe(tensor: *const c_void, ask: bool, trace: *mut c_void) -> bool {
    // SAFETY: it is given a tensor of the library and what was given to it along with this function, which
    // nobody else uses while the library computes.
    let (trace, functions) = unsafe {
        let trace = &mut *trace.cast::<Trace>();
        let Some(functions) = trace.functions.filter(|_| trace.on) else { return !ask };
        (trace, functions)
    };
    // SAFETY: these functions take a tensor; the buffer has as many bytes as are asked for.
    unsafe {
        let name = CStr::from_ptr((functions.name)(tensor)).to_str().unwrap_or_default();
        let Some(layer) = name.strip_prefix(LAYER).and_then(|layer| layer.parse().ok()) else {
            return !ask;
        };
        let (elements, bytes) = ((functions.elements)(tensor), (functions.bytes)(tensor));
        if !ask && usize::try_from(elements).is_ok_and(|elements| elements * 4 == bytes) {
            let mut numbers = vec![0_f32; bytes / 4];
            (functions.get)(tensor, numbers.as_mut_ptr().cast(), 0, bytes);
            trace.layers.push((layer, numbers));
        }
    }
    true
}

type Load = unsafe extern "C" fn(*const c_char, Params) -> Opaque;
type Create = unsafe extern "C" fn(Opaque, Params) -> Opaque;
type Count = unsafe extern "C" fn(*const c_void) -> i32;
type Tokenize =
    unsafe extern "C" fn(*const c_void, *const c_char, i32, *mut i32, i32, bool, bool) -> i32;

impl<'a> Llama<'a> {
    /// The versions of the structures that a library takes.
    pub(crate) fn layouts(
        libraries: &Libraries,
    ) -> Result<(&'static Layout<ModelFields>, &'static Layout<ContextFields>), String> {
        // SAFETY: these functions take nothing and give structures; if those were greater than there is room
        // for, it would be the end of this process alone.
        let (model, context) = unsafe {
            let (_, model) = Params::of(libraries.get("llama_model_default_params")?);
            let (_, context) = Params::of(libraries.get("llama_context_default_params")?);
            (model, context)
        };
        Ok((layout::model(&model)?, layout::context(&context)?))
    }

    /// Loads a model, and makes a context for it.
    pub(crate) fn load(
        libraries: &'a Libraries,
        contract: Contract,
        path: &Path,
        settings: &Settings,
    ) -> Result<Llama<'a>, String> {
        let names = contract.names().ok_or("it is no library of llama.cpp")?;
        let (model_layout, context_layout) = Llama::layouts(libraries)?;
        let file = c_path(path)?;
        libraries.load_backends()?;
        // SAFETY: the functions have these types in all versions that keep to a contract of llama.cpp, and the
        // structures are of versions that are known.
        unsafe {
            libraries.get::<unsafe extern "C" fn()>("llama_backend_init")?();
            let (mut params, _) = Params::of(libraries.get("llama_model_default_params")?);
            params.set(model_layout.fields.gpu_layers, settings.gpu_layers.to_le_bytes());
            let model = libraries.get::<Load>(names.load)?(file.as_ptr(), params);
            if model.is_null() {
                return Err(format!("it cannot load {}", path.display()));
            }
            let tokenizer = match contract.has_vocabulary() {
                true => libraries
                    .get::<unsafe extern "C" fn(Opaque) -> Opaque>("llama_model_get_vocab")?(
                    model
                ),
                false => model,
            };
            let count: Count = libraries.get(names.vocabulary)?;
            let mut llama = Llama {
                libraries,
                contract,
                names,
                model,
                context: ptr::null_mut(),
                tokenizer,
                vocabulary: settings.vocabulary,
                batch: settings.batch,
                trace: Box::new(Trace { on: false, functions: None, layers: Vec::new() }),
            };
            let (found, wanted) = (count(tokenizer), int(settings.vocabulary)?);
            if found != wanted {
                return Err(format!(
                    "it finds {found} tokens in the model's vocabulary, not {wanted}"
                ));
            }
            llama.create(context_layout, settings)?;
            Ok(llama)
        }
    }

    /// Makes the context.
    ///
    /// # Safety
    ///
    /// The layout must be that of the library.
    unsafe fn create(
        &mut self,
        layout: &Layout<ContextFields>,
        settings: &Settings,
    ) -> Result<(), String> {
        let ContextFields { callback, cache_types, flash, unified } = layout.fields;
        let words = [
            (layout::N_CTX, settings.context * settings.sequences),
            (layout::N_BATCH, settings.batch),
            (layout::N_UBATCH, settings.batch),
            (layout::N_SEQ_MAX, settings.sequences),
        ];
        // SAFETY: as of this function; the trace stays where it is for as long as the context.
        unsafe {
            let (mut params, _) = Params::of(self.libraries.get("llama_context_default_params")?);
            for (at, value) in words {
                params.set(at, int(value)?.to_le_bytes());
            }
            // F32 is 0 in all versions, F16 is 1.
            let cache = u32::from(!settings.exact_cache).to_le_bytes();
            params.set(cache_types, cache);
            params.set(cache_types + 4, cache);
            match flash {
                Flash::Byte(at) => params.set(at, [0]),
                Flash::Word(at) => params.set(at, 0_u32.to_le_bytes()),
            }
            if let Some(at) = unified {
                params.set(at, [0]);
            }
            if settings.layers {
                let libraries = self.libraries;
                self.trace.functions = Some(TraceFunctions {
                    name: libraries.get("ggml_get_name")?,
                    elements: libraries.get("ggml_nelements")?,
                    bytes: libraries.get("ggml_nbytes")?,
                    get: libraries.get("ggml_backend_tensor_get")?,
                });
                params.set(callback, (observe as *const c_void as usize).to_ne_bytes());
                let trace: *mut Trace = &raw mut *self.trace;
                params.set(callback + 8, (trace as usize).to_ne_bytes());
            }
            self.context = self.libraries.get::<Create>(self.names.context)?(self.model, params);
            if self.context.is_null() {
                return Err("it cannot make a context for the model".to_owned());
            }
            let threads = int(settings.threads)?;
            let set: unsafe extern "C" fn(Opaque, i32, i32) =
                self.libraries.get("llama_set_n_threads")?;
            set(self.context, threads, threads);
        }
        Ok(())
    }

    pub(crate) fn loaded(&self) -> Result<Loaded, String> {
        // SAFETY: the functions have these types in all versions.
        unsafe {
            let context: unsafe extern "C" fn(*const c_void) -> u32 =
                self.libraries.get("llama_n_ctx")?;
            let on_gpu =
                self.libraries.get::<unsafe extern "C" fn() -> bool>("llama_supports_gpu_offload");
            let mut text = [0_u8; 256];
            if let Ok(describe) =
                self.libraries
                    .get::<unsafe extern "C" fn(*const c_void, *mut c_char, usize) -> i32>(
                        "llama_model_desc",
                    )
            {
                describe(self.model, text.as_mut_ptr().cast(), text.len());
            }
            let description = CStr::from_bytes_until_nul(&text).unwrap_or_default();
            Ok(Loaded {
                context: context(self.context) as usize,
                description: description.to_string_lossy().into_owned(),
                offloads: on_gpu.is_ok_and(|on_gpu| on_gpu()),
            })
        }
    }

    /// The tokens of a text.
    pub(crate) fn tokenize(
        &self,
        text: &str,
        special: bool,
        parse: bool,
    ) -> Result<Vec<u32>, String> {
        let length = int(text.len())?;
        // As many tokens as bytes, and those around them.
        let mut tokens = vec![0_i32; text.len() + 8];
        // SAFETY: the function has this type in all versions; it writes as many tokens as there is room for.
        let count = unsafe {
            let tokenize: Tokenize = self.libraries.get("llama_tokenize")?;
            let (text, room) = (text.as_ptr().cast(), int(tokens.len())?);
            tokenize(self.tokenizer, text, length, tokens.as_mut_ptr(), room, special, parse)
        };
        ids("llama_tokenize", tokens, count)
    }

    /// Runs rows, in as many passes as they need, and gives the logits of those that want them.
    pub(crate) fn run(&mut self, rows: &[Row]) -> Result<(Ran, Vec<f32>), String> {
        let (mut ran, mut numbers) = (Ran::default(), Vec::new());
        self.trace.on = self.trace.functions.is_some();
        for rows in rows.chunks(self.batch.max(1)) {
            let start = Instant::now();
            self.pass(rows, &mut numbers)?;
            ran.nanoseconds += start.elapsed().as_nanos() as u64;
        }
        ran.logits = numbers.len();
        for (layer, values) in std::mem::take(&mut self.trace.layers) {
            ran.layers.push((layer, values.len()));
            numbers.extend(values);
        }
        Ok((ran, numbers))
    }

    fn pass(&mut self, rows: &[Row], numbers: &mut Vec<f32>) -> Result<(), String> {
        let column =
            |of: fn(&Row) -> usize| rows.iter().map(of).map(int).collect::<Result<Vec<_>, _>>();
        let (tokens, positions) = (column(|row| row.token as usize)?, column(|row| row.position)?);
        let sequences = column(|row| row.sequence)?;
        let pointers: Vec<*const i32> = sequences.iter().map(ptr::from_ref).collect();
        let counts = vec![1_i32; rows.len()];
        let logits: Vec<i8> = rows.iter().map(|row| i8::from(row.logits)).collect();
        let batch = Batch {
            tokens: int(rows.len())?,
            token: tokens.as_ptr(),
            embeddings: ptr::null(),
            positions: positions.as_ptr(),
            sequence_counts: counts.as_ptr(),
            sequences: pointers.as_ptr(),
            logits: logits.as_ptr(),
            legacy: [0; 4],
        };
        // SAFETY: the columns have as many entries as the batch says, and last longer than the call; logits
        // have as many numbers as the vocabulary has tokens.
        unsafe {
            let decode: unsafe extern "C" fn(Opaque, Batch) -> i32 =
                self.libraries.get("llama_decode")?;
            match decode(self.context, batch) {
                0 => {}
                1 => return Err("`llama_decode` has no room for so many tokens".to_owned()),
                other => return Err(format!("`llama_decode` gave {other}")),
            }
            let get: unsafe extern "C" fn(Opaque, i32) -> *const f32 =
                self.libraries.get("llama_get_logits_ith")?;
            for index in (0..rows.len()).filter(|&index| rows[index].logits) {
                let logits = get(self.context, int(index)?);
                if logits.is_null() {
                    return Err(format!("it has no logits of row {index}"));
                }
                numbers.extend_from_slice(std::slice::from_raw_parts(logits, self.vocabulary));
            }
        }
        Ok(())
    }

    /// Forgets the tokens of a sequence from a position on.
    pub(crate) fn truncate(&mut self, sequence: usize, length: usize) -> Result<(), String> {
        let (sequence, from) = (int(sequence)?, int(length)?);
        // SAFETY: the functions have these types in the versions that have them.
        let removed = unsafe {
            let of = match self.contract {
                Contract::LlamaMemory => self
                    .libraries
                    .get::<unsafe extern "C" fn(Opaque) -> Opaque>("llama_get_memory")?(
                    self.context,
                ),
                _ => self.context,
            };
            let remove: unsafe extern "C" fn(Opaque, c_int, c_int, c_int) -> bool =
                self.libraries.get(self.names.remove)?;
            remove(of, sequence, from, -1)
        };
        if removed { Ok(()) } else { Err(format!("it cannot forget position {from}")) }
    }
}

impl Drop for Llama<'_> {
    fn drop(&mut self) {
        // SAFETY: both were made by the library and are not used any more.
        unsafe {
            if !self.context.is_null()
                && let Ok(free) = self.libraries.get::<unsafe extern "C" fn(Opaque)>("llama_free")
            {
                free(self.context);
            }
            if let Ok(free) =
                self.libraries.get::<unsafe extern "C" fn(Opaque)>(self.names.free_model)
            {
                free(self.model);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::transmute;

    use super::*;

    /// A structure as libraries have them: larger than registers.
    #[repr(C)]
    #[derive(Clone, Copy, PartialEq, Debug)]
    struct Given {
        pointer: *const u8,
        words: [i32; 9],
        flag: bool,
    }

    const GIVEN: Given =
        Given { pointer: ptr::null(), words: [1, 2, 3, 4, 5, 6, 7, 8, 9], flag: true };

    extern "C" fn give() -> Given {
        GIVEN
    }

    extern "C" fn take(before: *const c_char, given: Given, after: i32) -> i32 {
        let same = given == Given { words: [1, 2, 77, 4, 5, 6, 7, 8, 9], ..GIVEN };
        i32::from(before.is_null() && same) * after
    }

    /// Structures that are only known by their size come and go as if their type were known: on every processor
    /// that this is run on.
    #[test]
    fn structures_come_and_go() {
        // SAFETY: `give` takes nothing and gives a structure of more than two words.
        let (mut params, written) = unsafe { Params::of(give as *const () as Opaque) };
        assert_eq!(written[8..12], [Some(1), Some(0), Some(0), Some(0)]);
        assert_eq!(written[44], Some(1));
        assert!(written[size_of::<Given>()..].iter().all(Option::is_none));
        params.set(16, 77_u32.to_le_bytes());
        // SAFETY: the beginning of what is passed is such a structure.
        let taken = unsafe {
            let take: extern "C" fn(*const c_char, Params, i32) -> i32 =
                transmute(take as *const ());
            take(ptr::null(), params, 5)
        };
        assert_eq!(taken, 5);
    }
}
