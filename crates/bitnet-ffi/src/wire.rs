//! What goes over the pipe to the process with a library, and comes back.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::contract::Contract;

/// How each message begins: what a library prints is not taken for one.
const MAGIC: [u8; 8] = *b"bitnet\x01\n";
/// Bytes of a message without its numbers, at most.
const LONGEST: u64 = 256 << 20;

/// How a model is to be loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Tokens that each sequence can hold.
    pub context: usize,
    /// Rows of a pass.
    pub batch: usize,
    /// Threads.
    pub threads: usize,
    /// Sequences.
    pub sequences: usize,
    /// Layers on the GPU; -1 is all.
    pub gpu_layers: i32,
    /// Keys and values in single precision; in half precision otherwise.
    pub exact_cache: bool,
    /// Whether to give the output of each layer.
    pub layers: bool,
    /// Tokens of the vocabulary: what the library finds must be as many.
    pub vocabulary: usize,
}

/// What a library says of a model that it has loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loaded {
    /// Tokens of context, of all sequences.
    pub context: usize,
    /// What it calls the model.
    pub description: String,
    /// Whether it can compute on a GPU.
    pub offloads: bool,
}

/// A token to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its sequence.
    pub sequence: usize,
    /// Its place there.
    pub position: usize,
    /// Its id.
    pub token: u32,
    /// Whether its logits are wanted.
    pub logits: bool,
}

/// What was computed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ran {
    /// How long the library took.
    pub(crate) nanoseconds: u64,
    /// How many of the numbers are logits.
    pub(crate) logits: usize,
    /// Layers whose output comes behind them, with how many numbers each.
    pub(crate) layers: Vec<(usize, usize)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Open {
        library: String,
        contract: Contract,
    },
    Load {
        model: String,
        settings: Settings,
    },
    Tokenize {
        text: String,
        special: bool,
        parse: bool,
    },
    Run {
        rows: Vec<Row>,
    },
    Truncate {
        sequence: usize,
        length: usize,
    },
    /// Which of these functions there are.
    Has {
        names: Vec<String>,
    },
    Dequantize {
        name: String,
        count: usize,
    },
    Quantize {
        name: String,
        rows: usize,
        bytes: usize,
    },
    /// Behind it numbers, then weights.
    Dot {
        name: String,
        activation: String,
        rows: usize,
        cols: usize,
        rounds: usize,
    },
}

impl Request {
    /// What it is called in errors.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Request::Open { .. } => "open",
            Request::Load { .. } => "load",
            Request::Tokenize { .. } => "tokenize",
            Request::Run { .. } => "run",
            Request::Truncate { .. } => "truncate",
            Request::Has { .. } => "has",
            Request::Dequantize { .. } => "dequantize",
            Request::Quantize { .. } => "quantize",
            Request::Dot { .. } => "dot",
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Opened {
        versions: Vec<(String, String)>,
        /// The builds whose structures it takes, or what is not known of them.
        layouts: Result<Vec<String>, String>,
    },
    Loaded(Loaded),
    Tokens(Vec<u32>),
    Ran(Ran),
    Done,
    Has {
        found: Vec<bool>,
        processor: Option<String>,
    },
    /// With numbers or bytes behind it.
    Data,
    Dotted {
        nanoseconds: u64,
    },
    Refused {
        what: String,
    },
}

/// Writes a message and the data behind it.
pub(crate) fn write(to: &mut impl Write, message: &impl Serialize, data: &[u8]) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    to.write_all(&MAGIC)?;
    to.write_all(&(text.len() as u64).to_le_bytes())?;
    to.write_all(&(data.len() as u64).to_le_bytes())?;
    to.write_all(&text)?;
    to.write_all(data)?;
    to.flush()
}

/// Reads a message and the data behind it; nothing at the end.
pub(crate) fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<(T, Vec<u8>)>> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut head = [0; 24];
    let begun = from.take(1).read(&mut head)?;
    if begun == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[1..])?;
    let [magic, text, data] = [0, 8, 16].map(|at| {
        let mut word = [0; 8];
        word.copy_from_slice(&head[at..at + 8]);
        word
    });
    if magic != MAGIC {
        return Err(invalid(&format!(
            "a message begins with {:?}",
            String::from_utf8_lossy(&head)
        )));
    }
    let text = u64::from_le_bytes(text);
    if text > LONGEST {
        return Err(invalid("a message is too long"));
    }
    let text = exactly(from, text)?;
    let data = exactly(from, u64::from_le_bytes(data))?;
    Ok(Some((serde_json::from_slice(&text)?, data)))
}

/// So many bytes. Memory is taken as they come.
fn exactly(from: &mut impl Read, count: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(count).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == count {
        true => Ok(bytes),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Numbers as bytes.
pub(crate) fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Bytes as numbers; what is left over at the end is no number.
pub(crate) fn numbers(bytes: &[u8]) -> Vec<f32> {
    let word = |word: &[u8]| f32::from_le_bytes([word[0], word[1], word[2], word[3]]);
    bytes.chunks_exact(4).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_as_they_went() {
        let values = [1.0, -0.0, f32::NAN, f32::INFINITY, 1e-45];
        let mut pipe = Vec::new();
        write(&mut pipe, &Response::Tokens(vec![1, u32::MAX]), &[]).unwrap();
        write(&mut pipe, &Response::Data, &bytes(&values)).unwrap();
        let mut from = &pipe[..];
        let (first, none) = read::<Response>(&mut from).unwrap().unwrap();
        assert!(matches!(first, Response::Tokens(tokens) if tokens == [1, u32::MAX]));
        assert!(none.is_empty());
        let (_, data) = read::<Response>(&mut from).unwrap().unwrap();
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&numbers(&data)), bits(&values));
        assert!(read::<Response>(&mut from).unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let mut whole = Vec::new();
        write(&mut whole, &Response::Done, &[7; 9]).unwrap();
        for length in 1..whole.len() {
            let error = read::<Response>(&mut &whole[..length]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length}");
        }
        let error =
            read::<Response>(&mut &b"llama_model_loader: loaded meta data"[..]).unwrap_err();
        assert!(error.to_string().contains("llama_model"), "{error}");
        let mut long = whole.clone();
        long[8..16].fill(0xff);
        assert!(read::<Response>(&mut &long[..]).unwrap_err().to_string().contains("too long"));
        let mut other = whole;
        other[24] = b'!';
        assert!(read::<Response>(&mut &other[..]).is_err());
    }
}
