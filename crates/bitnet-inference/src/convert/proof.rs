//! That a conversion kept what it had to.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::{Conversion, Planned};
use crate::source::{Contents, TernaryMatrix};
use crate::{Checkpoint, Error, sha256};

/// SHA-256 of the weights of a matrix, one byte each, and its scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sum([u8; 32]);

impl Sum {
    pub(super) fn of(matrix: &TernaryMatrix) -> Sum {
        let mut digest = Sha256::new();
        digest.update(matrix.scale.to_le_bytes());
        for weights in matrix.weights.chunks(1 << 16) {
            let codes: Vec<u8> = weights.iter().map(|w| (w + 1).cast_unsigned()).collect();
            digest.update(&codes);
        }
        Sum(digest.finalize().into())
    }
}

/// What is the same in a model before and after its conversion.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proof {
    /// Ternary matrices.
    pub matrices: usize,
    /// SHA-256 of the weights and scales of all of them, as they were, in hexadecimal.
    pub before: String,
    /// The same of what was written, read again from the disk.
    pub after: String,
    /// Other tensors that were found to hold the same numbers.
    pub numbers: usize,
    /// Other tensors, which are less precise now.
    pub rounded: usize,
}

impl Conversion<'_> {
    /// Reads what was written and compares. `path` is where it lies, `name` where it will.
    pub(super) fn prove(
        &self,
        path: &Path,
        name: &str,
        read: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<Proof, Error> {
        let changed = |what: String| Error::Unequal { file: name.to_owned(), what };
        let written = Checkpoint::open(path)?;
        let found = Contents::new(&written, None)?;
        let (mut before, mut after) = (Sha256::new(), Sha256::new());
        let mut proof = Proof {
            matrices: 0,
            before: String::new(),
            after: String::new(),
            numbers: 0,
            rounded: 0,
        };
        for planned in &self.tensors {
            let name = &planned.tensor.name;
            let tensor = written.tensor(name);
            let tensor = tensor.ok_or_else(|| changed(format!("tensor `{name}` is missing")))?;
            match planned.ternary {
                Some(ternary) => {
                    let sum = Sum::of(&found.matrix(tensor)?);
                    if sum != ternary.sum || !found.is_ternary(tensor)? {
                        return Err(changed(format!("tensor `{name}` holds other weights")));
                    }
                    before.update(ternary.sum.0);
                    after.update(sum.0);
                    proof.matrices += 1;
                }
                None if rounds(planned) => proof.rounded += 1,
                None => {
                    if self.sum_of_numbers(&self.contents, planned.tensor)?
                        != self.sum_of_numbers(&found, tensor)?
                    {
                        return Err(changed(format!("tensor `{name}` holds other numbers")));
                    }
                    proof.numbers += 1;
                }
            }
            if !read(self.length(planned)) {
                return Err(Error::Stopped);
            }
        }
        (proof.before, proof.after) = (sha256::finish(before), sha256::finish(after));
        Ok(proof)
    }

    fn sum_of_numbers(
        &self,
        contents: &Contents<'_>,
        tensor: &crate::StoredTensor,
    ) -> Result<[u8; 32], Error> {
        let mut digest = Sha256::new();
        contents.numbers(tensor, |numbers| {
            let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
            digest.update(&bytes);
            Ok(())
        })?;
        Ok(digest.finalize().into())
    }
}

/// Whether numbers lose precision by being stored as something else.
fn rounds(planned: &Planned<'_>) -> bool {
    use bitnet_kernels::Format;
    planned.to != planned.from && planned.to != Format::F32
}
